"""A robot spec as text for the terminal: ``print(spec)`` and ``vla inspect``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

MAX_ROWS = 24  # action dimensions that are listed
_FITS = {
    "stretch": "stretched to this size",
    "crop": "centre cropped to this shape",
    "pad": "padded with black to this shape",
}


def describe(spec: Any) -> str:
    """One screen of text: inputs, actions with units and bounds, and their statistics.

    Args:
        spec: a ``RobotSpec``, whose module imports this one.
    """
    height, width = spec.image_size
    size = f"{width} x {height} px, {_FITS[spec.image_fit]}"
    space = spec.action_space
    lines = [
        ("cameras", f"{', '.join(spec.cameras) or 'none'}"),
        ("images", size if min(spec.image_size) > 0 else "any size, not resized"),
        ("history", f"{_count(spec.history, 'frame')}, the current one included"),
        ("state", f"{_count(spec.state_dim, 'number')}" if spec.state_dim else "not used"),
        (
            "actions",
            f"{_count(space.dim, 'dimension')} at {space.rate_hz:g} Hz, "
            f"{_count(spec.horizon, 'step')} per policy call",
        ),
    ]
    if not spec.execution.is_default:
        lines.append(("execution", _execution(spec)))
    if spec.benchmark:
        lines.append(("benchmark", str(spec.benchmark.get("name", "unnamed"))))
    table = "\n".join(f"  {row}" for row in _action_rows(spec))
    return "\n".join(f"{name:<9}  {text}" for name, text in lines) + f"\n{table}"


def _execution(spec: Any) -> str:
    weight = spec.execution.temporal_ensemble
    if weight is not None:
        return f"temporal ensembling, weights exp(-{weight:g} k), k = 0 for the oldest chunk"
    steps = spec.execution.steps_per_call(spec.horizon)
    text = f"{steps} of {_count(spec.horizon, 'step')} of a chunk"
    return f"{text}, {spec.execution.mode}" if spec.execution.overlaps else text


def _action_rows(spec: Any) -> list[str]:
    """One aligned line per action dimension, below a header."""
    space, statistics = spec.action_space, spec.statistics.get("actions", {})
    header = ["action", "unit", "low", "high"]
    columns = [name for name in ("mean", "std", "q01", "q99") if name in statistics]
    rows = [header + columns]
    for k, name in enumerate(space.names[:MAX_ROWS]):
        row = [name, space.units[k] or "-", number(space.low[k]), number(space.high[k])]
        row += [number(statistics[c][k]) for c in columns]
        kinds = {**dict.fromkeys(space.binary, "binary"), **dict.fromkeys(space.integer, "whole")}
        kind = kinds.get(name, "")
        if spec.relative and spec.relative[k] >= 0:
            kind = f"relative to state {spec.relative[k]}"
        rows.append([*row, kind])
    widths = [max(len(r[c]) for r in rows) for c in range(len(rows[0]))]
    lines = [_aligned(r, widths) for r in rows]
    if space.dim > MAX_ROWS:
        lines.append(f"... and {_count(space.dim - MAX_ROWS, 'further dimension')}")
    return lines


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.ljust(width) if column < 2 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=False))
    ]
    return "  ".join([*cells, *row[len(widths) :]]).rstrip()


def number(value: Any) -> str:
    """A number with 4 significant digits; infinite bounds as ``-inf`` and ``inf``."""
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
