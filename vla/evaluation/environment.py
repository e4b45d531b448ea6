"""Actions that do not fit an environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vla.errors import DataError
from vla.types import ActionSpace
from vla.utils.notes import note

_HINT = "; clip_actions=false takes all numbers, where a gymnasium environment's bounds are wrong"


def check_actions(
    ours: ActionSpace,
    theirs: ActionSpace,
    name: str,
    giver: str = "the policy",
    recorded: Mapping[str, Any] | None = None,
) -> None:
    """Compare the actions that ``giver`` gives with those that the benchmark ``name`` takes.

    Bounds that are wider than the benchmark's are printed. ``recorded``: statistics of its data
    (``column_statistics``), whose 1 % and 99 % quantiles stand for infinite bounds.

    Raises:
        DataError: another number of dimensions, the same names in another order, or bounds of a
            dimension that have no value in common.
    """
    if ours.dim != theirs.dim:
        raise DataError(
            f"{name} takes {theirs.dim} action numbers ({', '.join(theirs.names)}), {giver} gives "
            f"{ours.dim} ({', '.join(ours.names)}); choose the environment that it belongs to"
        )
    if ours.names != theirs.names and set(ours.names) == set(theirs.names):
        raise DataError(
            f"{name} takes the actions in the order {', '.join(theirs.names)}, {giver} gives "
            f"{', '.join(ours.names)}; reorder mapping.action and pack again"
        )
    wider = []
    low_A, high_A = (
        np.where(np.isinf(bounds), (recorded or {}).get(quantile, bounds), bounds)
        for bounds, quantile in ((ours.low, "q01"), (ours.high, "q99"))
    )
    columns = (ours.names, low_A, high_A, theirs.low, theirs.high)
    for dim, low, high, lowest, highest in zip(*columns, strict=True):
        bounds = f"{dim}: {low:g} to {high:g}, {name} takes {lowest:g} to {highest:g}"
        if low > highest or high < lowest:
            raise DataError(
                f"the actions of {giver} are outside the bounds of {name} ({bounds}); "
                f"check the units of the data{_HINT}"
            )
        margin = 1e-3 * (high - low)
        if low < lowest - margin or high > highest + margin:
            wider.append(bounds)
    if wider:
        found = "; ".join(wider)
        note(f"actions beyond the bounds of the environment may be clipped: {found}{_HINT}")
