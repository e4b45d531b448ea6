"""The doctor's checks of single dimensions: finite values, ranges and statistics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from vla.doctor.findings import Finding
from vla.doctor.views import DatasetView, EpisodeView
from vla.utils.text import count

NEAR_CONSTANT = 1e-3  # q99 - q01 as a share of the range, below which a dimension is near-constant
CLIPPED_SHARE = 0.02  # share of rows at the minimum or maximum, above which a dimension is clipped
BINARY_SHARE = 0.6  # above this share of rows at the ends, a dimension is probably binary
MIN_ROWS = 10  # rows from which on a share of them says something


def is_finite(episode: EpisodeView) -> bool:
    """True if all actions and states are finite."""
    arrays = [episode.actions] + ([episode.state] if episode.state is not None else [])
    return all(bool(np.isfinite(values).all()) for values in arrays)


def finite_columns(arrays: Sequence[np.ndarray], dims: int) -> list[np.ndarray]:
    """The finite values of each of ``dims`` dimensions over all rows, float64; possibly none."""
    pooled = np.concatenate([np.zeros((0, dims)), *arrays])
    return [column[np.isfinite(column)] for column in pooled.T]


def not_finite(dataset: DatasetView, episodes: list[EpisodeView]) -> Iterator[Finding]:
    """NaN and infinite values, and dimensions that have no others."""
    bad = [e.key for e in episodes if not is_finite(e)]
    if not bad:
        return
    text = f"{count(len(bad), 'episode')} with NaN or infinite values; repair or drop them"
    yield Finding("NaN or infinite values", "error", text, bad)
    states = [e.state for e in episodes if e.state is not None]
    width = states[0].shape[1] if states else 0
    names = dataset.state_names if len(dataset.state_names) == width else ()
    names = tuple(f"state {name}" for name in names or range(width))
    columns = finite_columns([e.actions for e in episodes], len(dataset.names))
    columns += finite_columns(states, len(names))
    listed_names = [*dataset.names, *names]
    empty = [n for n, c in zip(listed_names, columns, strict=True) if not len(c)]
    if empty:
        listed = ", ".join(empty)
        yield Finding(
            "dimension without values",
            "error",
            f"{listed}: no row has a finite value; leave it out of mapping.action and "
            "mapping.state, or repair the recording",
            empty,
        )


def action_ranges(dataset: DatasetView, episodes: list[EpisodeView]) -> Iterator[Finding]:
    """Constant and near-constant dimensions, and many values at the ends of the range."""
    columns = finite_columns([e.actions for e in episodes], len(dataset.names))
    known = {n: c for n, c in zip(dataset.names, columns, strict=True) if len(c)}
    constant = [n for n, c in known.items() if c.min() == c.max()]
    rows = sum(len(e.actions) for e in episodes)
    if constant and rows > 1:
        every = len(constant) == len(known)
        yield Finding(
            "constant dimension",
            "error" if every else "warning",
            "no action dimension ever changes, so there is nothing to learn; check the recording"
            if every
            else f"{len(constant)} of {count(len(known), 'dimension')} never change "
            f"({', '.join(constant)}); check the recording, or {dataset.leave_out(constant)}",
            constant,
        )
    listed = {*constant, *dataset.binary, *dataset.action_space.integer}
    free = {n: c for n, c in known.items() if n not in listed}
    near = [n for n, c in free.items() if _inner(c) < NEAR_CONSTANT * (c.max() - c.min())]
    if near:
        yield Finding(
            "near-constant dimension",
            "warning",
            f"{', '.join(near)}: 98 % of the rows are within a thousandth of the range, so "
            "quantile normalisation fails; remove outliers, or use normalise: min_max",
            near,
        )
    at_end = {
        n: float(((c == c.min()) | (c == c.max())).mean()) for n, c in free.items() if n not in near
    }
    binary = [n for n, share in at_end.items() if share > BINARY_SHARE and rows >= MIN_ROWS]
    if binary:
        yield Finding(
            "possibly binary dimension",
            "note",
            f"{', '.join(binary)}: nearly always at the minimum or maximum; "
            "if it is binary, set mapping.binary",
            binary,
        )
    # One row at the minimum and one at the maximum are normal.
    most = max(CLIPPED_SHARE, 3 / max(rows, MIN_ROWS))
    clipped = [n for n, share in at_end.items() if most < share <= BINARY_SHARE]
    if clipped:
        shares = ", ".join(f"{n} {100 * at_end[n]:.0f} %" for n in clipped)
        yield Finding(
            "clipped dimension",
            "warning",
            f"rows at the minimum or maximum: {shares}; the recorder or controller clips there",
            clipped,
        )


def _inner(column: np.ndarray) -> float:
    q01, q99 = np.quantile(column, [0.01, 0.99])
    return float(q99 - q01)


def statistics_in_use(dataset: DatasetView, episodes: list[EpisodeView]) -> Iterator[Finding]:
    """Statistics in the manifest that are not those of the data; values beyond the bounds."""
    if dataset.statistics is None or dataset.unreadable:
        return
    space, wrong, outside = dataset.action_space, [], []
    for k, column in enumerate(finite_columns([e.actions for e in episodes], space.dim)):
        if not len(column):
            continue
        room = 1e-4 * (column.max() - column.min()) + 1e-6 * np.abs(column).max() + 1e-12
        figures = {"min": column.min(), "max": column.max(), "mean": column.mean()}
        stated = {name: dataset.statistics[name][k] for name in figures}
        if any(not math.isclose(stated[n], v, rel_tol=0, abs_tol=room) for n, v in figures.items()):
            wrong.append(space.names[k])
        if column.min() < space.low[k] - room or column.max() > space.high[k] + room:
            outside.append(space.names[k])
    if wrong:
        yield Finding(
            "wrong statistics",
            "error",
            f"{', '.join(wrong)}: minimum, maximum or mean in the manifest are not those of the "
            "data; pack the data again",
            wrong,
        )
    if outside:
        yield Finding(
            "values beyond the bounds",
            "warning",
            f"{', '.join(outside)}: recorded values are outside the bounds of the action space, "
            "where a policy's actions are clipped; correct the bounds or the units",
            outside,
        )
