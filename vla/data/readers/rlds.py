"""RLDS and Open X-Embodiment episodes in TFRecord files, without TensorFlow."""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vla.config.registry import register
from vla.data.readers.base import Field, Frames, Reader, Recording, need
from vla.data.readers.files import SKIP_BAD
from vla.errors import DataError

# Bytes around a record: its length with a checksum, and the checksum of the data.
_HEAD, _FOOT = 12, 4


@register("reader", "rlds")
class RldsReader(Reader):
    """A folder with ``features.json`` and ``*.tfrecord*`` files; one record is one episode.

    The format does not record the rows per second.

    Raises:
        DataError: a file or the description is missing or truncated.
    """

    format, layout, order = "rlds", "features.json, *.tfrecord", 20

    @classmethod
    def detects(cls, path: Path) -> bool:
        """True if there is a ``features.json`` or a TFRecord file."""
        has_records = path.is_dir() and any(path.glob("*.tfrecord*"))
        return has_records or (path / "features.json").is_file()

    def __init__(self, path: Path) -> None:
        self.path = path
        files = sorted(p for p in path.glob("*.tfrecord*"))
        if not files:
            raise DataError(
                f"{path}: features.json but no .tfrecord files; download the whole folder"
            )
        self.robot, self.missing = _name(path), _missing_files(files)
        self.places = [(file, offset, size) for file in files for offset, size in _records(file)]
        if not self.places:
            raise DataError(f"{path}: its .tfrecord files hold no episodes")
        self.fields = _fields(path / "features.json")
        first = self._example(0)
        empty = [  # declared without data, such as Bridge's image_1 to image_3
            k
            for k, f in self.fields.items()
            if f.kind == "image" and not any(first[k].bytes_list.value if k in first else [])
        ]
        self.fields = {k: f for k, f in self.fields.items() if k not in empty}

    def __len__(self) -> int:
        return len(self.places)

    def _example(self, index: int) -> Any:
        """The features of one record, checked against its checksum."""
        proto, crc = need("tfrecord.example_pb2"), need("crc32c")
        file, offset, size = self.places[index]
        with file.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(size)
            (expected,) = struct.unpack("<I", stream.read(_FOOT))
        value = crc.crc32c(data)
        if ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF != expected:
            raise DataError(
                f"{file}: episode {index} does not match its checksum; "
                "download the file again, or skip bad episodes with --skip-bad"
            )
        example = proto.Example()
        example.ParseFromString(data)
        return example.features.feature

    def __getitem__(self, index: int) -> Recording:
        features = self._example(index)
        where = f"{self.places[index][0]}: episode {index}"
        steps = self._steps(features, where)
        numbers: dict[str, np.ndarray] = {}
        frames: dict[str, Frames] = {}
        texts: dict[str, list[str]] = {}
        for key, field in self.fields.items():
            if key not in features:
                raise DataError(f"{where} has no {key!r}, which features.json declares; {SKIP_BAD}")
            values = features[key]
            if field.kind == "numbers":
                flat = np.array(
                    values.float_list.value or values.int64_list.value, dtype=np.float64
                )
                if flat.size != steps * field.dims:
                    raise DataError(
                        f"{where}: {key!r} has {flat.size} numbers for {steps} steps of "
                        f"{field.dims}; {SKIP_BAD}"
                    )
                numbers[key] = flat.reshape(steps, field.dims)
            elif len(values.bytes_list.value) != steps:
                raise DataError(
                    f"{where}: {key!r} has {len(values.bytes_list.value)} entries for {steps} "
                    f"steps; {SKIP_BAD}"
                )
            elif field.kind == "text":
                texts[key] = [v.decode("utf-8", "replace") for v in values.bytes_list.value]
            else:
                frames[key] = _images(values.bytes_list.value, f"{where}: {key!r}")
        named = [k for k in texts if "instruction" in k]
        instruction = next((t for k in named for t in texts[k] if t.strip()), "")
        return Recording(f"{index:07d}", steps, self.fps, instruction, numbers, frames, texts)

    def _steps(self, features: Any, where: str) -> int:
        for key in ("steps/is_first", "steps/is_last", "steps/reward"):
            if key in features:
                return len(features[key].int64_list.value or features[key].float_list.value)
        for key, field in self.fields.items():
            if field.kind == "numbers" and key in features:
                return (
                    len(features[key].float_list.value or features[key].int64_list.value)
                    // field.dims
                )
        raise DataError(f"{where} has no numbers; this is not an RLDS episode")


def _records(file: Path) -> Iterator[tuple[int, int]]:
    """(offset, size) of the data of every record, without reading it."""
    total = file.stat().st_size
    with file.open("rb") as stream:
        at = 0
        while at < total:
            head = stream.read(_HEAD)
            size = struct.unpack("<Q", head[:8])[0] if len(head) == _HEAD else total
            if at + _HEAD + size + _FOOT > total:
                raise DataError(f"{file}: truncated after {at} bytes; download the file again")
            yield at + _HEAD, size
            at += _HEAD + size + _FOOT
            stream.seek(at)


def _missing_files(files: list[Path]) -> list[str]:
    """Message about absent files, judged by names such as ``-00001-of-00004``."""
    named = [re.search(r"-(\d+)-of-(\d+)", f.name) for f in files]
    numbers = {int(m[1]) for m in named if m}
    total = max((int(m[2]) for m in named if m), default=0)
    gone = [n for n in range(total) if n not in numbers]
    listed = ", ".join(f"{n:05d}-of-{total:05d}" for n in gone[:5])
    return [f"{len(gone)} of {total} .tfrecord files are missing: {listed}"] if gone else []


def _name(path: Path) -> str:
    try:
        return str(
            json.loads((path / "dataset_info.json").read_text(encoding="utf-8")).get("name", "")
        )
    except (OSError, ValueError):
        return ""


def _fields(path: Path) -> dict[str, Field]:
    """Columns of ``steps`` from ``features.json``."""
    try:
        steps = json.loads(path.read_text(encoding="utf-8"))["featuresDict"]["features"]["steps"][
            "sequence"
        ]["feature"]
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: missing; an RLDS data set has it beside its .tfrecord files"
        ) from error
    except (ValueError, KeyError) as error:
        raise DataError(
            f"{path}: not the description of RLDS steps ({error!r}); download it again"
        ) from error
    found: dict[str, Field] = {}

    def walk(feature: dict[str, Any], prefix: str) -> None:
        if "featuresDict" in feature:
            for name, part in feature["featuresDict"]["features"].items():
                walk(part, f"{prefix}/{name}")
        elif "image" in feature or feature["pythonClassName"].endswith("Image"):
            found[prefix] = Field("image")
        elif "text" in feature or feature.get("tensor", {}).get("dtype") == "string":
            found[prefix] = Field("text")
        elif "tensor" in feature:
            dims = [int(d) for d in feature["tensor"].get("shape", {}).get("dimensions", [])]
            found[prefix] = Field("numbers", int(np.prod(dims)) if dims else 1)

    walk(steps, "steps")
    return found


def _images(values: Sequence[bytes], where: str) -> Frames:
    def frames(rows: Sequence[int]) -> Iterator[np.ndarray]:
        for r in rows:
            try:
                with Image.open(io.BytesIO(values[r])) as image:
                    yield np.asarray(image.convert("RGB"))
            except OSError as error:
                raise DataError(
                    f"{where}: unreadable image at step {r} ({error}); {SKIP_BAD}"
                ) from error

    return frames
