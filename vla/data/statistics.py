"""Statistics of actions and states, pooled over all rows of one or several data sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vla.types import ActionSpace

LEVELS = 257  # quantiles per dimension: the edges of 256 bins


def column_statistics(files: Sequence[Path]) -> dict[str, Any]:
    """Statistics per column of (T, A) arrays in ``.npy`` files, as if they were one array.

    Only one column is in memory at a time, so that large data sets fit.

    Returns:
        ``min``, ``q01``, ``q99``, ``max``, ``mean``, ``std`` with A values each, and
        ``quantiles`` (257, A) at even levels. Values have 9 significant digits.
    """
    width = int(np.load(files[0], mmap_mode="r").shape[1])
    rows: dict[str, list[float]] = {k: [] for k in ("min", "q01", "q99", "max", "mean", "std")}
    grid = []
    for k in range(width):
        column = np.concatenate([np.load(f, mmap_mode="r")[:, k] for f in files]).astype(np.float64)
        column.sort()
        q01, q99 = np.quantile(column, [0.01, 0.99])
        figures = (column[0], q01, q99, column[-1], column.mean(), column.std())
        for name, value in zip(rows, figures, strict=True):
            rows[name].append(float(f"{value:.9g}"))
        grid.append([float(f"{v:.9g}") for v in np.quantile(column, np.linspace(0, 1, LEVELS))])
    return {**rows, "quantiles": [list(level) for level in zip(*grid, strict=True)]}


def concatenate(parts: Sequence[Path], out: Path) -> None:
    """Write the rows of several (T, A) ``.npy`` files into one, without loading them."""
    arrays = [np.load(p, mmap_mode="r") for p in parts]
    shape = (sum(len(a) for a in arrays), arrays[0].shape[1])
    layout = {"descr": "<f4", "fortran_order": False, "shape": shape}
    temporary = out.with_suffix(".npy.tmp")
    with temporary.open("wb") as file:  # a memory map of a full disk would end the process
        np.lib.format.write_array_header_1_0(file, layout)
        for array in arrays:
            file.write(np.asarray(array, "<f4").tobytes())
    temporary.replace(out)


def union_bounds(spaces: Sequence[ActionSpace]) -> ActionSpace:
    """The first action space, with bounds that include those of all."""
    low = tuple(min(column) for column in zip(*(s.low for s in spaces), strict=True))
    high = tuple(max(column) for column in zip(*(s.high for s in spaces), strict=True))
    return replace(spaces[0], low=low, high=high)


def with_data_bounds(space: ActionSpace, statistics: dict[str, Any]) -> ActionSpace:
    """An action space whose infinite bounds are replaced by the data's minimum and maximum.

    A dimension that never changes gets a margin of 0.1 % (at least 0.001), a whole-number
    dimension the next whole number.
    """
    low = [a if math.isfinite(a) else b for a, b in zip(space.low, statistics["min"], strict=True)]
    high = [
        a if math.isfinite(a) else b for a, b in zip(space.high, statistics["max"], strict=True)
    ]
    for k, name in enumerate(space.names):
        if low[k] == high[k]:
            room = 1.0 if name in space.integer else max(1e-3, abs(low[k]) * 1e-3)
            low[k], high[k] = low[k] - (name not in space.integer) * room, high[k] + room
    return replace(space, low=tuple(low), high=tuple(high))
