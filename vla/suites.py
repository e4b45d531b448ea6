"""Suites in closed loop: cells, the paper's averages, and two policies on the same episodes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from vla.data.manifest import DataError
from vla.evaluate import Result, summary
from vla.sim.suites import CELLS


def averages(results: Sequence[Result]) -> dict[str, float]:
    """Suite -> mean over its columns of the mean over a column's cells, as in RT-2's Tables 4 and 5; suites with every cell present only."""
    share = {name: row["success"] for name, row in summary(results).items()}
    columns: dict[str, dict[str, list[str]]] = {}
    for name, cell in CELLS.items():
        columns.setdefault(cell.suite, {}).setdefault(cell.column, []).append(name)
    return {
        suite: float(np.mean([np.mean([share[n] for n in names]) for names in parts.values()]))
        for suite, parts in columns.items()
        if all(n in share for names in parts.values() for n in names)
    }


def read_results(path: Path) -> list[Result]:
    """Episodes of a ``results.json``.

    Raises:
        DataError: no such file, or not what ``vla eval`` writes.
    """
    try:
        return [Result(**row) for row in json.loads(path.read_text(encoding="utf-8"))["episodes"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not the results of `vla eval` ({error}); give the results.json it wrote") from error


def mcnemar(ours: Sequence[Result], theirs: Sequence[Result]) -> dict[str, Any]:
    """Exact McNemar test on paired episodes.

    Returns:
        n pairs; only_ours, only_theirs: pairs that one of the two won; p: two-sided, of chance alone making them so uneven.

    Raises:
        DataError: the two have no or not the same episodes (seed and skill).
    """
    won = {(r.seed, r.skill): r.success for r in theirs}
    if not ours or set(won) != {(r.seed, r.skill) for r in ours}:
        raise DataError(
            "paired comparison: the two results are of different episodes; evaluate both with the same seeds, skills and number of episodes"
        )
    only_ours = sum(r.success and not won[r.seed, r.skill] for r in ours)
    only_theirs = sum(won[r.seed, r.skill] and not r.success for r in ours)
    p = float(binomtest(only_ours, only_ours + only_theirs).pvalue) if only_ours + only_theirs else 1.0
    return {"n": len(ours), "only_ours": only_ours, "only_theirs": only_theirs, "p": p}
