"""Success shares of a study's tasks, columns and groups, their intervals and ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vla.benchmarks.base import Task
from vla.evaluation.statistics import wilson

Bits = Mapping[str, np.ndarray]  # task id -> success of its episodes in seed order


def columns_of(tasks: Sequence[Task]) -> dict[str, list[Task]]:
    """Column of the published table -> its tasks; a task without a column has its own."""
    columns: dict[str, list[Task]] = {}
    for task in tasks:
        columns.setdefault(task.column or task.id, []).append(task)
    return columns


def groups_of(tasks: Sequence[Task]) -> dict[str, list[Task]]:
    """Group -> its tasks; a task without a group is left out."""
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        if task.group:
            groups.setdefault(task.group, []).append(task)
    return groups


def column_share(success: Bits, tasks: Sequence[Task]) -> float | None:
    """Mean over the tasks of a column (0 to 1); None if a task has no episodes."""
    if not all(t.id in success for t in tasks):
        return None
    return float(np.mean([success[t.id].mean() for t in tasks]))


def column_interval(success: Bits, tasks: Sequence[Task]) -> tuple[float, float]:
    """95 % Wilson interval over the pooled episodes of a column.

    The tasks of a column have the same number of episodes, so pooling keeps the mean.
    """
    pooled = np.concatenate([success[t.id] for t in tasks])
    return wilson(int(pooled.sum()), len(pooled))


def group_share(success: Bits, tasks: Sequence[Task]) -> float | None:
    """Mean over the columns of a group (0 to 1); None if a task has no episodes."""
    shares = [column_share(success, members) for members in columns_of(tasks).values()]
    known = [s for s in shares if s is not None]
    return float(np.mean(known)) if len(known) == len(shares) else None


def group_interval(success: Bits, tasks: Sequence[Task]) -> tuple[float, float]:
    """95 % interval of ``group_share`` from the intervals of its columns.

    MOVER: Zou and Donner, Statistics in Medicine 27, 2008. scipy has no counterpart.
    """
    below, above, columns = 0.0, 0.0, columns_of(tasks)
    for members in columns.values():
        share, (low, high) = column_share(success, members), column_interval(success, members)
        assert share is not None
        below, above = below + (share - low) ** 2, above + (high - share) ** 2
    mean = group_share(success, tasks)
    assert mean is not None
    return mean - below**0.5 / len(columns), mean + above**0.5 / len(columns)


def ratio_interval(
    ours: Bits, theirs: Bits, tasks: Sequence[Task], rounds: int = 2000
) -> tuple[float, float]:
    """95 % bootstrap interval of the ratio of two group averages on the same episodes.

    Episodes are resampled task by task in pairs, with a fixed seed. scipy's ``bootstrap`` resamples
    one axis and cannot keep the tasks apart.
    """
    rng = np.random.default_rng(0)
    sums = np.zeros((2, rounds))
    for members in columns_of(tasks).values():
        for task in members:
            both = np.stack([ours[task.id], theirs[task.id]]).astype(float)
            drawn = rng.integers(both.shape[1], size=(rounds, both.shape[1]))
            sums += both[:, drawn].mean(2) / len(members)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = np.nanpercentile(sums[0] / sums[1], [2.5, 97.5], method="nearest")
    return float(low), float(high)
