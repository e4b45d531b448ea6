"""``features.json`` of RLDS data sets: the columns, and how a record stores their values."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.readers.base import Field
from vla.data.readers.files import SKIP_BAD, read_json_file, reading
from vla.data.readers.pixels import decode_pixels, is_depth
from vla.errors import DataError

STEPS, METADATA = "steps", "episode_metadata"
_IMAGE_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", b"GIF8")
_MIN_SIDE = 16  # px; smaller matrices are numbers, not images
_MIN_TEXT = 4  # bytes; shorter integer vectors are numbers, not texts


@dataclass(frozen=True)
class Column:
    """One feature of a step, or of an episode."""

    field: Field
    dtype: str = "float32"
    shape: tuple[int, ...] = ()  # of one row
    encoding: str = "none"  # of tensors: none (a list of numbers), bytes or zlib
    per_episode: bool = False  # one value for all rows
    # image: encoded bytes; tensor: numbers of an image; codes: byte values of a text
    storage: str = ""


def read_columns(path: Path) -> tuple[dict[str, Column], list[str]]:
    """(columns by name, names of the features that are left out) of a ``features.json``.

    Raises:
        DataError: the file is missing, damaged, or does not describe steps.
    """
    if not path.is_file():
        raise DataError(f"{path}: missing; an RLDS data set has it beside its .tfrecord files")
    whole = _parts(read_json_file(path))
    steps = whole.get(STEPS)
    if not isinstance(steps, dict):
        known = ", ".join(whole) or "nothing"
        raise DataError(f"{path}: describes {known}, not RLDS steps; download it again")
    inner: dict[str, Any] = steps.get("sequence") or steps.get("dataset") or steps
    found: dict[str, Column] = {}
    left_out: list[str] = []
    try:
        _walk(whole.get(METADATA, {}), METADATA, found, left_out)
        _walk(inner.get("feature", inner), STEPS, found, left_out)
    except DataError as error:
        raise DataError(f"{path}: {error}; download it again") from error
    return found, left_out


def _parts(feature: Any) -> dict[str, Any]:
    inside = feature.get("featuresDict") if isinstance(feature, dict) else None
    parts = inside.get("features") if isinstance(inside, dict) else None
    return parts if isinstance(parts, dict) else {}


def _walk(feature: Any, name: str, found: dict[str, Column], left_out: list[str]) -> None:
    if not isinstance(feature, dict):
        raise DataError(f"{name} is {feature!r}, not a feature")
    if "featuresDict" in feature:
        for part, inner in _parts(feature).items():
            _walk(inner, f"{name}/{part}", found, left_out)
        return
    try:
        column = _column(feature, name)
    except (TypeError, ValueError, AttributeError):
        column = None
    if column is not None:
        found[name] = column
    elif name not in (STEPS, METADATA):
        left_out.append(name)


def _column(feature: dict[str, Any], name: str) -> Column | None:
    """None for a feature without a fixed size per row."""
    per_episode = name.startswith(METADATA)
    kind = str(feature.get("pythonClassName", "")).rsplit(".", 1)[-1]
    if "image" in feature or kind == "Image":
        about = feature.get("image") or {}
        shape, dtype = _shape(about), str(about.get("dtype") or "uint8")
        depth = dtype not in ("uint8", "") or is_depth(name, shape[2] if len(shape) == 3 else None)
        return Column(Field("image", depth=depth), dtype, shape, "none", per_episode, "image")
    if "text" in feature or kind == "Text":
        return Column(Field("text"), "string", per_episode=per_episode)
    if "classLabel" in feature or kind == "ClassLabel":
        return Column(Field("numbers", 1), "int64", per_episode=per_episode)
    if "tensor" not in feature:
        return None
    about = feature["tensor"]
    shape, dtype = _shape(about), str(about.get("dtype") or "float32")
    encoding = str(about.get("encoding") or "none").lower()
    if any(n <= 0 for n in shape):
        return None
    if dtype == "string":
        return (
            Column(Field("text"), dtype, (), "none", per_episode) if np.prod(shape) == 1 else None
        )
    if _is_text_codes(name, dtype, shape):
        return Column(Field("text"), dtype, shape, encoding, per_episode, "codes")
    if _is_image(dtype, shape):
        channels = min(shape[0], shape[2]) if len(shape) == 3 else 1
        depth = is_depth(name, channels) or (channels == 1 and dtype != "uint8")
        return Column(Field("image", depth=depth), dtype, shape, encoding, per_episode, "tensor")
    dims = int(np.prod(shape)) if shape else 1
    return Column(Field("numbers", dims), dtype, shape, encoding, per_episode)


def _shape(about: dict[str, Any]) -> tuple[int, ...]:
    """Declared shape; -1 for a dimension of any size."""
    shape = about.get("shape") or {}
    dims = shape.get("dimensions") or [] if isinstance(shape, dict) else shape
    return tuple(int(n) if n not in (None, "") else -1 for n in dims)


def _is_text_codes(name: str, dtype: str, shape: tuple[int, ...]) -> bool:
    """Texts as byte values, padded with zeros, such as those of Language-Table."""
    short = name.rsplit("/", 1)[-1].lower()
    named = ("instruction" in short or "language" in short) and "embed" not in short
    return named and "int" in dtype and len(shape) == 1 and shape[0] >= _MIN_TEXT


def _is_image(dtype: str, shape: tuple[int, ...]) -> bool:
    if len(shape) == 3 and min(shape[0], shape[2]) in (1, 3, 4):
        sides = shape[:2] if shape[2] in (1, 3, 4) else shape[1:]
    elif len(shape) == 2:
        sides = shape
    else:
        return False
    return min(sides) >= _MIN_SIDE and not dtype.startswith("int64")


def holds_images(values: Sequence[bytes]) -> bool:
    """True if the first text that is not empty is an encoded image."""
    first = next((v for v in values if v), b"")
    return first.startswith(_IMAGE_SIGNATURES)


def read_numbers(feature: Any, column: Column, steps: int, where: str) -> np.ndarray:
    """(steps, numbers per row) float64, or the declared integer type for images.

    Raises:
        DataError: the record has another number of values.
    """
    dims = int(np.prod(column.shape)) if column.shape else 1
    dtype = np.dtype(column.dtype) if column.storage == "tensor" else np.dtype(np.float64)
    if len(feature.bytes_list.value):
        rows = [_raw(v, column, dims) for v in feature.bytes_list.value]
        flat = np.concatenate([r.astype(dtype) for r in rows])
    else:
        flat = np.array(feature.float_list.value or feature.int64_list.value, dtype=dtype)
    if flat.size != steps * dims:
        raise DataError(f"{where} has {flat.size} numbers for {steps} steps of {dims}; {SKIP_BAD}")
    return flat.reshape(steps, dims)


def _raw(value: bytes, column: Column, dims: int) -> np.ndarray:
    dtype = np.dtype(column.dtype)
    if column.encoding == "zlib":
        value = zlib.decompressobj().decompress(value, dims * dtype.itemsize + 1)
    return np.frombuffer(value, dtype)


def read_texts(feature: Any, column: Column, steps: int, where: str) -> list[str]:
    """``steps`` texts.

    Raises:
        DataError: the record has another number of texts.
    """
    rows = 1 if column.per_episode else steps
    if column.storage == "codes":
        codes = read_numbers(feature, column, rows, where).astype(np.int64)
        values = [bytes(int(c) & 0xFF for c in row if c > 0) for row in codes]
    else:
        values = list(feature.bytes_list.value)
    if len(values) != rows:
        raise DataError(f"{where} has {len(values)} entries for {rows} steps; {SKIP_BAD}")
    texts = [v.decode("utf-8", "replace").rstrip("\0") for v in values]
    return texts * steps if column.per_episode else texts


def _bytes(column: Column) -> int:
    return int(np.prod(column.shape)) * np.dtype(column.dtype).itemsize


def read_images(
    feature: Any, column: Column, rows: Sequence[int], steps: int, where: str
) -> Iterator[np.ndarray]:
    """The images of some rows, see ``Frames``.

    Raises:
        DataError, BadSample: a damaged image, or another number of images.
    """
    encoded = feature.bytes_list.value
    if column.storage == "tensor" and (column.encoding != "none" or not len(encoded)):
        with reading(where):
            pixels = read_numbers(feature, column, steps, where)
        for r in rows:
            image = pixels[r].reshape(column.shape)
            yield decode_pixels(image, f"{where}, step {r}", depth=column.field.depth)
        return
    if len(encoded) != steps:
        raise DataError(f"{where} has {len(encoded)} entries for {steps} steps; {SKIP_BAD}")
    for r in rows:
        value: Any = encoded[r]
        with reading(f"{where}, step {r}"):
            if column.storage == "tensor" and len(value) == _bytes(column):  # of the array
                value = np.frombuffer(value, column.dtype).reshape(column.shape)
        yield decode_pixels(value, f"{where}, step {r}", depth=column.field.depth)
