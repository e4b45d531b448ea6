"""Statistics of evaluation episodes: Wilson intervals and paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from vla.benchmarks.base import EpisodeResult
from vla.errors import DataError


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion (0 to 1).

    Raises:
        ValueError: n is 0.
    """
    if n == 0:
        raise ValueError("wilson: n=0 has no interval; run at least one episode")
    interval = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def summary(results: Sequence[EpisodeResult]) -> dict[str, dict[str, float]]:
    """Task -> n, success share (0 to 1), its Wilson bounds, mean steps, means of the metrics
    over the episodes that have them.

    The row "all" has the figures of all episodes, if there are several tasks.
    """
    groups = {t: [r for r in results if r.task == t] for t in sorted({r.task for r in results})}
    if len(groups) > 1:
        groups["all"] = list(results)
    rows = {}
    for name, group in groups.items():
        wins = sum(r.success for r in group)
        low, high = wilson(wins, len(group))
        names = sorted({m for r in group for m in r.metrics})
        rows[name] = {
            "n": len(group),
            "success": wins / len(group),
            "low": low,
            "high": high,
            "steps": float(np.mean([r.steps for r in group])),
            **{m: float(np.mean([r.metrics[m] for r in group if m in r.metrics])) for m in names},
        }
    return rows


def percentages(shares: Mapping[str, float]) -> dict[str, str]:
    """Success and its bounds, of a row of ``summary``, in % with one decimal for CSV files."""
    return {name: f"{100 * shares[name]:.1f}" for name in ("success", "low", "high")}


def mcnemar(ours: Sequence[EpisodeResult], theirs: Sequence[EpisodeResult]) -> dict[str, Any]:
    """Exact McNemar test on paired episodes.

    Returns:
        n: number of pairs; only_ours, only_theirs: number of pairs in which one side alone
        succeeded; p: two-sided p-value.

    Raises:
        DataError: the two do not have the same episodes (seed and task).
    """
    won = {(r.seed, r.task): r.success for r in theirs}
    if not ours or set(won) != {(r.seed, r.task) for r in ours}:
        raise DataError(
            "paired comparison: the two results have different episodes; evaluate both with the "
            "same seeds, tasks and number of episodes"
        )
    return mcnemar_of_pairs([r.success for r in ours], [won[r.seed, r.task] for r in ours])


def mcnemar_of_pairs(ours: Sequence[bool], theirs: Sequence[bool]) -> dict[str, Any]:
    """Exact McNemar test on success flags in the same order; returns what ``mcnemar`` returns."""
    pairs = list(zip(ours, theirs, strict=True))
    only_ours = sum(bool(a) and not b for a, b in pairs)
    only_theirs = sum(bool(b) and not a for a, b in pairs)
    n = only_ours + only_theirs
    p = float(binomtest(only_ours, n).pvalue) if n else 1.0
    return {"n": len(pairs), "only_ours": only_ours, "only_theirs": only_theirs, "p": p}
