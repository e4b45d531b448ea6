"""Columns of LeRobot's tables as numbers, texts and images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.readers.base import Frames, need
from vla.data.readers.files import SKIP_BAD
from vla.data.readers.pixels import decode_pixels
from vla.errors import BadSample


def kind_of(column_type: Any) -> str:
    """ "numbers", "text", "image", or another Arrow type's name, for a column."""
    types = need("pyarrow").types
    inner = column_type
    while types.is_list(inner) or types.is_large_list(inner) or types.is_fixed_size_list(inner):
        inner = inner.value_type
    number = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    if any(test(inner) for test in number):
        return "numbers"
    if types.is_dictionary(inner):
        inner = inner.value_type
    if types.is_string(inner) or types.is_large_string(inner):
        return "text" if inner is column_type or types.is_dictionary(column_type) else "texts"
    if types.is_struct(column_type) and {f.name for f in column_type} & {"bytes", "path"}:
        return "image"
    return str(column_type)


def numbers_of(column: Any, dims: int, where: str) -> np.ndarray:
    """(T, dims) float64 of a column of numbers, lists, matrices or decimals as text.

    Raises:
        BadSample: an empty cell, a text that is no number, or a row with another number of
            values; the message has the row.
    """
    cells = column.to_pylist()
    try:
        values = np.array(cells, dtype=np.float64).reshape(len(cells), -1)
        if values.shape[1] == dims and not column.null_count and not np.isnan(values).any():
            return values
    except (ValueError, TypeError, OverflowError):
        pass
    rows = [_row(cell, dims, f"{where}, row {n}") for n, cell in enumerate(cells)]
    return np.array(rows, dtype=np.float64).reshape(len(cells), dims)


def _row(cell: Any, dims: int, where: str) -> list[float]:
    flat = _flat(cell)
    if any(v is None for v in flat):
        raise BadSample(f"{where}: empty cell; {SKIP_BAD}")
    if len(flat) != dims:
        raise BadSample(
            f"{where}: {len(flat)} numbers a row, meta/info.json declares {dims}; {SKIP_BAD}"
        )
    try:
        return [float(v) for v in flat]
    except (ValueError, TypeError) as error:
        shown = next(v for v in flat if not _is_number(v))
        raise BadSample(f"{where}: {shown!r} is no number; {SKIP_BAD}") from error


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (ValueError, TypeError):
        return False
    return True


def _flat(cell: Any) -> list[Any]:
    return [v for part in cell for v in _flat(part)] if isinstance(cell, list) else [cell]


def texts_of(column: Any) -> list[str]:
    """T texts; an empty cell is an empty text."""
    return [str(v or "") for v in column.to_pylist()]


def table_frames(column: Any, root: Path, where: str, depth: bool) -> Frames:
    """Images in a table: bytes, or struct{bytes, path} with a path below ``root``."""

    def frames(rows: Sequence[int]) -> Iterator[np.ndarray]:
        for r in rows:
            place = f"{where}, row {r}"
            cell = column[r].as_py()
            if isinstance(cell, dict):
                cell = cell.get("bytes") or _file(cell.get("path"), root, place)
            elif isinstance(cell, str):
                cell = _file(cell, root, place)
            if cell is None:
                raise BadSample(f"{place}: no image; {SKIP_BAD}")
            value = cell if isinstance(cell, bytes) else np.asarray(cell)
            yield decode_pixels(value, place, depth=depth)

    return frames


def _file(name: Any, root: Path, where: str) -> bytes:
    """The content of an image file of the data set."""
    if not name:
        raise BadSample(f"{where}: no image; {SKIP_BAD}")
    try:
        path = (root / str(name)).resolve()
        if not path.is_relative_to(root.resolve()):
            raise BadSample(
                f"{where}: the image {name} is outside the data set and was not copied into it; "
                f"{SKIP_BAD}"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, BadSample):
            raise
        raise BadSample(f"{where}: image {name}: {error}; {SKIP_BAD}") from error
