"""RLDS and Open X-Embodiment episodes in TFRecord files, read without TensorFlow."""

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

from vla.data.manifest import DataError
from vla.data.readers.base import Field, Frames, Recording, need

_HEAD, _FOOT = 12, 4  # bytes around a record: length and its checksum; the record's checksum


class RldsReader:
    """A folder with ``features.json`` and ``*.tfrecord*`` files; one record an episode.

    The format has no control rate: ``fps`` is 0, and the mapping must say it.

    Raises:
        DataError: a file is missing or cut off, or the description is.
    """

    format, fps = "rlds", 0.0

    def __init__(self, path: Path) -> None:
        self.path = path
        files = sorted(p for p in path.glob("*.tfrecord*"))
        if not files:
            raise DataError(f"{path}: features.json but no .tfrecord files; download the whole folder")
        self.robot, self.missing = _name(path), _missing_files(files)
        self.places = [(file, offset, size) for file in files for offset, size in _records(file)]
        if not self.places:
            raise DataError(f"{path}: its .tfrecord files hold no episodes")
        self.fields = _fields(path / "features.json")
        first = self._example(0)
        empty = [
            k for k, f in self.fields.items() if f.kind == "image" and not any(first[k].bytes_list.value if k in first else [])
        ]
        self.fields = {
            k: f for k, f in self.fields.items() if k not in empty
        }  # declared, but never filled (Bridge's image_1 to image_3)

    def __len__(self) -> int:
        return len(self.places)

    def _example(self, index: int) -> Any:
        """The features of one record, checked against its checksum."""
        proto, crc = need("tfrecord.example_pb2"), need("crc32c")
        file, offset, size = self.places[index]
        with file.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(size)
            (held,) = struct.unpack("<I", stream.read(_FOOT))
        value = crc.crc32c(data)
        if ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF != held:
            raise DataError(
                f"{file}: episode {index} does not match its checksum; download the file again, or skip bad episodes with --skip-bad"
            )
        example = proto.Example()
        example.ParseFromString(data)
        return example.features.feature

    def __getitem__(self, index: int) -> Recording:
        features, file = self._example(index), self.places[index][0]
        steps = self._steps(features, f"{file}: episode {index}")
        numbers: dict[str, np.ndarray] = {}
        frames: dict[str, Frames] = {}
        texts: dict[str, list[str]] = {}
        for key, field in self.fields.items():
            if key not in features:
                raise DataError(
                    f"{file}: episode {index} has no {key!r}, which features.json declares; repair it, or skip bad episodes with --skip-bad"
                )
            held = features[key]
            if field.kind == "numbers":
                flat = np.array(held.float_list.value or held.int64_list.value, dtype=np.float64)
                if flat.size != steps * field.dims:
                    raise DataError(
                        f"{file}: episode {index}: {key!r} has {flat.size} numbers for {steps} steps of {field.dims}; repair it, or skip bad episodes with --skip-bad"
                    )
                numbers[key] = flat.reshape(steps, field.dims)
            elif len(held.bytes_list.value) != steps:
                raise DataError(
                    f"{file}: episode {index}: {key!r} has {len(held.bytes_list.value)} entries for {steps} steps; repair it, or skip bad episodes with --skip-bad"
                )
            elif field.kind == "text":
                texts[key] = [v.decode("utf-8", "replace") for v in held.bytes_list.value]
            else:
                frames[key] = _pictures(held.bytes_list.value, f"{file}: episode {index}: {key!r}")
        spoken = [k for k in texts if "instruction" in k]
        instruction = next((t for k in spoken for t in texts[k] if t.strip()), "")
        return Recording(f"{index:07d}", steps, self.fps, instruction, numbers, frames, texts)

    def _steps(self, features: Any, where: str) -> int:
        for key in ("steps/is_first", "steps/is_last", "steps/reward"):
            if key in features:
                return len(features[key].int64_list.value or features[key].float_list.value)
        for key, field in self.fields.items():
            if field.kind == "numbers" and key in features:
                return len(features[key].float_list.value or features[key].int64_list.value) // field.dims
        raise DataError(f"{where} has no numbers at all; this is not an RLDS episode")


def _records(file: Path) -> Iterator[tuple[int, int]]:
    """(offset of the data, its size) of every record, without reading the data."""
    total = file.stat().st_size
    with file.open("rb") as stream:
        at = 0
        while at < total:
            head = stream.read(_HEAD)
            size = struct.unpack("<Q", head[:8])[0] if len(head) == _HEAD else total
            if at + _HEAD + size + _FOOT > total:
                raise DataError(f"{file}: cut off after {at} bytes; download the file again")
            yield at + _HEAD, size
            at += _HEAD + size + _FOOT
            stream.seek(at)


def _missing_files(files: list[Path]) -> list[str]:
    """Shards that the names ``-00001-of-00004`` promise and are not there."""
    named = [re.search(r"-(\d+)-of-(\d+)", f.name) for f in files]
    numbers = {int(m[1]) for m in named if m}
    total = max((int(m[2]) for m in named if m), default=0)
    gone = [n for n in range(total) if n not in numbers]
    return (
        [f"{len(gone)} of {total} .tfrecord files are missing: {', '.join(f'{n:05d}-of-{total:05d}' for n in gone[:5])}"]
        if gone
        else []
    )


def _name(path: Path) -> str:
    try:
        return str(json.loads((path / "dataset_info.json").read_text(encoding="utf-8")).get("name", ""))
    except (OSError, ValueError):
        return ""


def _fields(path: Path) -> dict[str, Field]:
    """Columns of ``steps`` from ``features.json``."""
    try:
        steps = json.loads(path.read_text(encoding="utf-8"))["featuresDict"]["features"]["steps"]["sequence"]["feature"]
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing; an RLDS data set has it beside its .tfrecord files") from error
    except (ValueError, KeyError) as error:
        raise DataError(f"{path}: not the description of RLDS steps ({error!r}); download it again") from error
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


def _pictures(values: Sequence[bytes], where: str) -> Frames:
    def frames(rows: Sequence[int]) -> Iterator[np.ndarray]:
        for r in rows:
            try:
                with Image.open(io.BytesIO(values[r])) as image:
                    yield np.asarray(image.convert("RGB"))
            except OSError as error:
                raise DataError(
                    f"{where}: unreadable picture at step {r} ({error}); repair it, or skip bad episodes with --skip-bad"
                ) from error

    return frames
