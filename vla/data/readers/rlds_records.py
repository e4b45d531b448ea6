"""TFRecord files: the places of their records, and the features of one record."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla.data.readers.base import need
from vla.data.readers.files import refuse_pointer
from vla.errors import BadSample, DataError

# Bytes around a record: its length with a checksum, and the checksum of the data.
_HEAD, _FOOT = 12, 4
_SPLIT = re.compile(r"[-_.](train|training|val|valid|validation|eval|test)\.(array_)?tfrecord")


@dataclass(frozen=True)
class Record:
    """One episode's place in a file."""

    file: Path
    offset: int
    size: int
    error: str = ""  # why this record and the rest of its file cannot be read


def records(file: Path) -> Iterator[Record]:
    """The places of a file's records; after damage, one record with the error is the last."""
    try:
        refuse_pointer(file)
        total = file.stat().st_size
        with file.open("rb") as stream:
            at = 0
            while at < total:
                head = stream.read(_HEAD)
                size = struct.unpack("<Q", head[:8])[0] if len(head) == _HEAD else total
                if len(head) == _HEAD and _masked_crc(head[:8]) != head[8:]:
                    yield _lost(file, at, "damaged at byte")
                    return
                if at + _HEAD + size + _FOOT > total:
                    yield _lost(file, at, "truncated after")
                    return
                yield Record(file, at + _HEAD, size)
                at += _HEAD + size + _FOOT
                stream.seek(at)
    except (OSError, DataError) as error:
        yield Record(file, 0, 0, str(error))


def _lost(file: Path, at: int, what: str) -> Record:
    bytes_ = f"{at} bytes" if what.endswith("after") else str(at)
    return Record(
        file,
        at,
        0,
        f"{file}: {what} {bytes_}; the rest of this file cannot be read; "
        "download it again, or pack without its last episodes with --skip-bad",
    )


def _masked_crc(data: bytes) -> bytes:
    value = need("crc32c").crc32c(data)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def read_features(record: Record, episode: int) -> Any:
    """The features of one record by name, checked against its checksum.

    Raises:
        BadSample: the record is damaged.
    """
    if record.error:
        raise BadSample(record.error)
    proto = need("tfrecord.example_pb2")
    where = f"{record.file}: episode {episode}"
    with record.file.open("rb") as stream:
        stream.seek(record.offset)
        data = stream.read(record.size)
        expected = stream.read(_FOOT)
    if _masked_crc(data) != expected:
        raise BadSample(
            f"{where} does not match its checksum; "
            "download the file again, or skip bad episodes with --skip-bad"
        )
    example = proto.Example()
    try:
        example.ParseFromString(data)
    except Exception as error:  # the class of protobuf's error depends on its version
        raise BadSample(f"{where} is not a tf.train.Example ({error})") from error
    return example.features.feature


def missing_files(files: list[Path]) -> list[str]:
    """Messages about absent files, by names such as ``toy-train.tfrecord-00001-of-00004``."""
    numbers: dict[tuple[str, int], set[int]] = {}
    for file in files:
        if found := re.search(r"^(.*)-(\d+)-of-(\d+)", file.name):
            numbers.setdefault((found[1], int(found[3])), set()).add(int(found[2]))
    messages = []
    for (name, total), present in numbers.items():
        gone = [n for n in range(total) if n not in present]
        if gone:
            listed = ", ".join(f"{n:05d}-of-{total:05d}" for n in gone[:5])
            messages.append(
                f"{len(gone)} of {total} .tfrecord files are missing ({name}): {listed}"
            )
    return messages


def dataset_name(path: Path) -> str:
    """The data set's name in ``dataset_info.json``; empty if there is none."""
    try:
        text = (path / "dataset_info.json").read_text(encoding="utf-8-sig")
        return str(json.loads(text).get("name", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def split_of(file: Path) -> str:
    """The split that a file's name records: "train" or "val"; empty if it records none."""
    found = _SPLIT.search(file.name)
    return "" if found is None else "train" if found[1].startswith("train") else "val"
