"""Messages of MCAP files and ROS 2 bags, in order of the time at which they were recorded."""

from __future__ import annotations

import contextlib
import json
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from vla.data.readers.base import need
from vla.data.readers.files import natural_sorted, read_text, reading, refuse_pointer
from vla.errors import BadSample, DataError

_MAX_RECORD = 1 << 30  # bytes
_FOOTER, _MAGIC = 29, 8  # bytes at the end of an MCAP file
METADATA = "metadata.yaml"  # of a ROS 2 bag
# (topic, time in ns, type, function that decodes the message)
Message = tuple[str, int, str, Callable[[], Any]]


class Bag(ABC):
    """One recording. ``messages`` opens its files anew."""

    def __init__(self, path: Path) -> None:
        self.path = path  # file or folder, for messages

    @abstractmethod
    def messages(self, topics: Collection[str] | None = None) -> Iterator[Message]:
        """Messages of some topics (default: of all), in rising order of time.

        Decoding raises DataError for an encoding that is not read.
        """

    def texts(self) -> dict[str, str]:
        """Texts about the whole recording."""
        return {}


class McapBag(Bag):
    """MCAP files that follow each other."""

    def __init__(self, path: Path, files: list[Path]) -> None:
        super().__init__(path)
        self.files = files

    def messages(self, topics: Collection[str] | None = None) -> Iterator[Message]:
        factory = need("mcap_ros2.decoder").DecoderFactory()
        for file in self.files:
            refuse_pointer(file)
            with file.open("rb") as stream, _damage(file):
                reader = self._reader(stream)
                wanted = None if topics is None else list(topics)
                for schema, channel, message in reader.iter_messages(topics=wanted):
                    decode = partial(_decode, factory, schema, channel, message.data, file)
                    kind = schema.name if schema is not None else ""
                    yield channel.topic, message.log_time, kind, decode

    @staticmethod
    def _reader(stream: Any) -> Any:
        _check_summary(stream)
        make = need("mcap.reader").SeekingReader
        return make(stream, validate_crcs=True, record_size_limit=_MAX_RECORD)

    def texts(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for file in self.files:
            with file.open("rb") as stream, _damage(file):
                for record in self._reader(stream).iter_metadata():
                    found |= record.metadata
        return found | _custom_data(self.path)


@contextlib.contextmanager
def _damage(file: Path) -> Iterator[None]:
    """Errors of the mcap library as one message with the remedy."""
    try:
        yield
    except (DataError, BadSample):
        raise
    except Exception as error:  # McapError, struct.error, errors of the decompressors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{file}: damaged or unfinished MCAP file ({reason}); try: mcap recover {file.name}, "
            "or skip bad episodes with --skip-bad"
        ) from error


def _check_summary(stream: Any) -> None:
    """Compare the checksum of the index, which the mcap library does not read.

    Raises:
        ValueError: the file does not end with a footer, or the checksum differs.
    """
    size = stream.seek(0, 2)
    if size < _FOOTER + _MAGIC:
        raise ValueError("no footer")
    stream.seek(size - _FOOTER - _MAGIC)
    footer = stream.read(_FOOTER)
    opcode, length, start, _, expected = struct.unpack("<BQQQI", footer)
    if (opcode, length) != (2, 20) or start > size:
        raise ValueError("no footer")
    if start and expected:
        stream.seek(start)
        summary = stream.read(size - _FOOTER - _MAGIC - start) + footer[:-4]
        if zlib.crc32(summary) != expected:
            raise ValueError("the index does not match its checksum")
    stream.seek(0)


def _decode(factory: Any, schema: Any, channel: Any, data: bytes, file: Path) -> Any:
    where = f"{file}: {channel.topic}"
    with reading(where):
        if channel.message_encoding == "json":
            return json.loads(data)
        decoder = factory.decoder_for(channel.message_encoding, schema)
        if decoder is None:
            kind = schema.encoding if schema is not None else "none"
            raise DataError(
                f"{where}: messages in {channel.message_encoding} with a schema in {kind} are not "
                "read; record or convert them as ROS 2 (cdr, ros2msg) or JSON"
            )
        return decoder(data)


class SqliteBag(Bag):
    """A ROS 2 bag with SQLite files.

    Only the message types of ROS 2's common interfaces are read: rosbags would turn definitions
    from the bag into Python code.
    """

    def messages(self, topics: Collection[str] | None = None) -> Iterator[Message]:
        types = need("rosbags.typesys")
        store = types.get_typestore(types.Stores.LATEST)
        with reading(str(self.path)), need("rosbags.rosbag2").Reader(self.path) as bag:
            wanted = [c for c in bag.connections if topics is None or c.topic in topics]
            for connection, time, data in bag.messages(wanted) if wanted else ():
                decode = partial(self._decode, store, connection, bytes(data))
                yield connection.topic, time, connection.msgtype, decode

    def _decode(self, store: Any, connection: Any, data: bytes) -> Any:
        with reading(f"{self.path}: {connection.topic}"):
            if connection.msgtype not in store.types:
                raise DataError(
                    f"{self.path}: {connection.topic}: {connection.msgtype} is no common type of "
                    "ROS 2; convert the bag with `ros2 bag convert` to storage_id: mcap"
                )
            return store.deserialize_cdr(data, connection.msgtype)

    def texts(self) -> dict[str, str]:
        return _custom_data(self.path)


def _metadata(folder: Path) -> dict[str, Any]:
    """What ``metadata.yaml`` says about a ROS 2 bag; empty if the folder is none."""
    path = folder / METADATA
    if not path.is_file():
        return {}
    try:
        found = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not YAML; run: ros2 bag reindex {folder}") from error
    about = found.get("rosbag2_bagfile_information") if isinstance(found, dict) else None
    return about if isinstance(about, dict) else {}


def _is_bag(folder: Path) -> bool:
    """True for a folder with ``metadata.yaml`` of a ROS 2 bag, also a damaged one."""
    try:
        return (folder / METADATA).exists() and bool(_metadata(folder))
    except DataError:
        return True


def _custom_data(folder: Path) -> dict[str, str]:
    custom = _metadata(folder).get("custom_data") if folder.is_dir() else None
    return {str(k): str(v) for k, v in custom.items()} if isinstance(custom, dict) else {}


def find_bags(path: Path) -> list[Bag]:
    """The recordings at a path: a file, a ROS 2 bag, or a folder of them."""
    if path.is_file():
        return [McapBag(path, [path])] if path.suffix == ".mcap" else []
    if not path.is_dir():
        return []
    inner = list(path.iterdir())
    # A dead link, or an empty folder where a file is expected, is a damaged recording.
    files = [p for p in inner if p.suffix == ".mcap" and not (p.is_dir() and any(p.iterdir()))]
    if _is_bag(path):
        if files:
            return [McapBag(path, natural_sorted(files))]
        return [SqliteBag(path)]
    if any(p.suffix == ".db3" for p in inner):
        return [SqliteBag(path)]
    found: list[Bag] = [McapBag(p, [p]) for p in natural_sorted(files)]
    for folder in natural_sorted(p for p in inner if p.is_dir() and p not in files):
        if any(any(folder.glob(name)) for name in (METADATA, "*.mcap", "*.db3")):
            found += find_bags(folder)
    return found
