"""Checks of environments: actions that do not fit, and exceptions that they raise."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from vla.errors import ConfigError, DataError, EnvironmentFailed
from vla.types import ActionSpace
from vla.utils.notes import note


def check_actions(
    ours: ActionSpace, theirs: ActionSpace, name: str, giver: str = "the policy"
) -> None:
    """Compare the actions that ``giver`` gives with those that the benchmark ``name`` takes.

    Bounds that are wider than the benchmark's are printed.

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
    columns = (ours.names, ours.low, ours.high, theirs.low, theirs.high)
    for dim, low, high, lowest, highest in zip(*columns, strict=True):
        bounds = f"{dim}: {low:g} to {high:g}, {name} takes {lowest:g} to {highest:g}"
        if low > highest or high < lowest:
            raise DataError(
                f"the actions of {giver} are outside the bounds of {name} ({bounds}); "
                "check the units of the data"
            )
        margin = 1e-3 * (high - low)
        if low < lowest - margin or high > highest + margin:
            wider.append(bounds)
    if wider:
        note(f"actions beyond the bounds of the environment may be clipped: {'; '.join(wider)}")


@contextmanager
def explained(benchmark: str, task: str, seed: int, step: int) -> Iterator[None]:
    """Replace an exception of an environment by one that says where it was raised.

    Raises:
        EnvironmentFailed: the code inside raises an exception of its own.
    """
    try:
        yield
    except (ConfigError, DataError):
        raise
    except Exception as error:  # environments raise any exception
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = str(error).strip().splitlines() or [""]
        raise EnvironmentFailed(
            f"{benchmark}: task {task!r}, seed {seed}, step {step}: the environment raised "
            f"{type(error).__name__}: {reason[0]} ({place.filename}, line {place.lineno})"
        ) from error
