"""Columns of one HDF5 demonstration: what they hold, and their values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from vla.data.readers.arrays import array_field, array_peak
from vla.data.readers.base import Field
from vla.data.readers.files import reading
from vla.data.readers.pixels import decode_pixels

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", b"GIF8")
_LOOKED_AT = 3  # rows of a column of bytes that are read to tell images from texts


def find_columns(demo: Any, steps: int) -> tuple[dict[str, Field], list[str]]:
    """(fields with one row per step, names of the others with as many rows)."""
    found: dict[str, Field] = {}
    odd: list[str] = []

    def visit(name: str, item: Any) -> None:
        if not getattr(item, "shape", None) or item.shape[0] != steps:
            return  # groups, single values, arrays of other lengths
        if name.startswith("next_obs"):
            return  # the same images and numbers, one row later
        field = _field(name, item)
        if field is None:
            odd.append(name)
        else:
            found[name] = field

    demo.visititems(visit)
    return found, odd


def _field(name: str, item: Any) -> Field | None:
    if is_encoded(item):
        return _encoded(item)
    if item.dtype == np.uint8 and item.ndim == 2 and ("image" in name or _is_signed(item)):
        return Field("image")  # encoded, padded with zeros
    return array_field(name, item)


def is_encoded(item: Any) -> bool:
    """True for rows of bytes: byte strings of fixed or variable length, opaque values."""
    return item.ndim == 1 and (item.dtype.kind == "S" or _is_variable(item) or _is_opaque(item))


def _is_variable(item: Any) -> bool:
    metadata = item.dtype.metadata or {}  # set by h5py: the type of the elements
    inner = metadata.get("vlen")
    return inner in (str, bytes) or (inner is not None and np.dtype(inner).itemsize == 1)


def _is_opaque(item: Any) -> bool:
    return item.dtype.kind == "V" and item.dtype.names is None and item.dtype.subdtype is None


def _encoded(item: Any) -> Field | None:
    if _is_signed(item):
        return Field("image")
    inner = (item.dtype.metadata or {}).get("vlen")
    is_text = item.dtype.kind == "S" or inner in (str, bytes)
    return Field("text") if is_text else None


def _is_signed(item: Any) -> bool:
    """True if one of the first rows begins like an encoded image."""
    rows = (to_bytes(item[r])[:4] for r in range(min(_LOOKED_AT, len(item))))
    return any(row.startswith(_SIGNATURES) for row in rows)


def to_bytes(value: Any) -> bytes:
    """A row of bytes, of any HDF5 type."""
    if isinstance(value, str):
        return value.encode()
    return value.tobytes() if isinstance(value, (np.ndarray, np.generic)) else bytes(value)


def read_texts(item: Any) -> list[str]:
    """The texts of a column of byte strings."""
    return [to_bytes(v).decode("utf-8", "replace").rstrip("\0") for v in item[:]]


def read_images(
    open_item: Callable[[], AbstractContextManager[Any]],
    rows: Sequence[int],
    field: Field,
    where: str,
) -> Iterator[np.ndarray]:
    """The images of some rows, see ``Frames``."""
    with open_item() as item:
        peak = array_peak(item) if item.dtype.kind == "f" else None
        for r in rows:
            place = f"{where}, row {r}"
            with reading(place):
                value = item[r]
                value = to_bytes(value) if is_encoded(item) else np.asarray(value)
            yield decode_pixels(value, place, depth=field.depth, peak=peak)
