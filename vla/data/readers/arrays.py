"""Columns of arrays with one row per step, as HDF5, zarr and npz files store them."""

from __future__ import annotations

from typing import Any

import numpy as np

from vla.data.readers.base import Field
from vla.data.readers.files import SKIP_BAD
from vla.data.readers.pixels import is_depth, peak_of
from vla.errors import DataError

MAX_BYTES = 1 << 31  # of one column of numbers in one episode, and of one stored block
_MIN_SIDE = 16  # px; smaller matrices are numbers, not images
_CHANNELS = (1, 3, 4)
_METRES = 20.0  # floats of one channel above 1 and up to this are distances
_SAMPLED = 5  # images from which the largest value of a camera is estimated


def array_field(name: str, array: Any) -> Field | None:
    """The field of an array (T, ...) of numbers; None if a row is no image and no vector."""
    dtype, row = array.dtype, tuple(array.shape[1:])
    if dtype.kind not in "fiub" or 0 in row:
        return None
    if not is_image(dtype, row):
        return Field("numbers", int(np.prod(row)) if row else 1) if len(row) <= 2 else None
    channels = 1 if len(row) == 2 else row[2] if row[2] in _CHANNELS else row[0]
    deep = is_depth(name, channels) or (channels == 1 and dtype == np.uint16)
    if channels == 1 and dtype.kind == "f" and not deep:
        peak = array_peak(array)
        deep = 1.0 < peak <= _METRES or peak > 255.5
    return Field("image", depth=deep)


def is_image(dtype: np.dtype, row: tuple[int, ...]) -> bool:
    """True if rows of this type and shape are images: (H, W), (H, W, C) or (C, H, W)."""
    if len(row) == 3 and (row[2] in _CHANNELS or row[0] in _CHANNELS):
        sides = row[:2] if row[2] in _CHANNELS else row[1:]
        return min(sides) >= (1 if dtype == np.uint8 else _MIN_SIDE)
    return len(row) == 2 and min(row) >= _MIN_SIDE and dtype != np.int64


def array_peak(array: Any) -> float:
    """The largest value in some images of an array, for ``decode_pixels``; 0 if unreadable."""
    count = array.shape[0]
    step = max(1, count // _SAMPLED)
    try:
        return peak_of(np.asarray(array[r]) for r in range(0, count, step))
    except Exception:  # a damaged image is reported where it is used
        return 0.0


def as_numbers(array: Any, dims: int, where: str) -> np.ndarray:
    """(T, dims) float64.

    Args:
        array: an array, or a data set of a file, with shape (T, ...).

    Raises:
        DataError: another width or type, or more than 2 GiB.
    """
    width = int(np.prod(array.shape[1:])) if array.shape else 0
    if width != dims or array.dtype.kind not in "fiub":
        raise DataError(
            f"{where}: {array.dtype} of shape {array.shape}; expected {dims} numbers per row as "
            f"in the first episode; {SKIP_BAD}"
        )
    if array.size * 8 > MAX_BYTES:
        raise DataError(f"{where}: shape {array.shape} needs more than 2 GiB; {SKIP_BAD}")
    return np.asarray(array, np.float64).reshape(array.shape[0], dims)
