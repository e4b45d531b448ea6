"""Results by group of tasks, averages over groups, and published rows beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vla.benchmarks.base import Benchmark, EpisodeResult
from vla.evaluation.statistics import wilson


def group_summary(
    benchmark: Benchmark, results: Sequence[EpisodeResult]
) -> dict[str, dict[str, float]]:
    """Group or average -> tasks, n, success share (0 to 1), its 95 % bounds low and high.

    A group is left out if one of its tasks has no episodes, an average if one of its groups is. A
    group has the Wilson interval of all its episodes, if its share is that of all its episodes.
    The interval of an average combines those of its groups (MOVER, Zou and Donner 2008).
    """
    found: dict[str, dict[str, float]] = {}
    for group, share in benchmark.summarise(results).items():
        tasks = {task.id for task in benchmark.tasks() if task.group == group}
        wins = [r.success for r in results if r.task in tasks]
        found[group] = {"tasks": len(tasks), "n": len(wins), "success": share}
        if math.isclose(share, float(np.mean(wins)), abs_tol=1e-9):
            found[group]["low"], found[group]["high"] = wilson(sum(wins), len(wins))
    for average, weights in benchmark.averages.items():
        if all("low" in found.get(group, {}) for group in weights):
            found[average] = _weighted([(w, found[group]) for group, w in weights.items()])
    return found


def _weighted(parts: Sequence[tuple[float, Mapping[str, float]]]) -> dict[str, float]:
    """The weighted mean of independent shares, with an interval."""
    mean = sum(weight * part["success"] for weight, part in parts)
    down, up = (
        math.sqrt(sum((weight * (part["success"] - part[side])) ** 2 for weight, part in parts))
        for side in ("low", "high")
    )
    return {
        "tasks": sum(part["tasks"] for _, part in parts),
        "n": sum(part["n"] for _, part in parts),
        "success": mean,
        "low": max(0.0, mean - down),
        "high": min(1.0, mean + up),
    }


def group_rows(found: Mapping[str, Mapping[str, float]]) -> list[dict[str, str]]:
    """One printable row per group and average of ``group_summary``."""
    return [
        {
            "group": name.replace("_", " "),
            "success": f"{100 * s['success']:.1f} %",
            "95 % interval": f"{100 * s['low']:.1f} to {100 * s['high']:.1f}" if "low" in s else "",
            "tasks": str(int(s["tasks"])),
            "episodes": str(int(s["n"])),
        }
        for name, s in found.items()
    ]


def comparison_rows(
    benchmark: Benchmark, found: Mapping[str, Mapping[str, float]], label: str
) -> list[dict[str, str]]:
    """Published rows of the benchmark, and ours if all groups are there; shares in %."""
    published: list[dict[str, Any]] = [
        {"model": row.model, "shares": row.shares, "source": row.source}
        for row in benchmark.published()
    ]
    columns = list(dict.fromkeys(name for row in published for name in row["shares"]))
    ours = {name: 100 * found[name]["success"] for name in columns if name in found}
    if not published or not ours:
        return []
    published.append({"model": label, "shares": ours, "source": "this evaluation"})
    return [
        {"model": row["model"]}
        | {
            name.replace("_", " "): f"{row['shares'][name]:.1f}" if name in row["shares"] else ""
            for name in columns
        }
        | {"source": row["source"]}
        for row in published
    ]
