"""Comparison of a data set with the statistics of a saved policy, before fine-tuning."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vla.doctor.findings import Finding, Summary
from vla.doctor.ranges import finite_columns
from vla.doctor.views import DatasetView
from vla.policies.checkpoint import read_robot_specs


def compare(dataset: DatasetView, summary: Summary, policy: Path) -> list[Finding]:
    """Action dimensions whose values do not fit the statistics of the policy in a folder."""
    specs = read_robot_specs(policy)
    spec = next((s for s in specs.values() if s.action_space.names == dataset.names), None)
    if spec is None:
        known = "; ".join(f"{n}: {', '.join(s.action_space.names)}" for n, s in specs.items())
        text = (
            f"{policy} controls {known}; this data has {', '.join(dataset.names)}: "
            "it becomes a new robot with its own statistics"
        )
        return [Finding("different robot", "note", text)]
    statistics = spec.statistics.get("actions")
    if not statistics:
        text = f"{policy} was saved without action statistics; use normalise: bounds"
        return [Finding("no statistics", "warning", text)]
    columns = finite_columns([e.actions for e in summary.episodes], len(dataset.names))
    findings = []
    for k, name in enumerate(spec.action_space.names):
        if name not in dataset.binary and len(columns[k]):
            findings += _compare_values(
                name, columns[k], statistics["q01"][k], statistics["q99"][k]
            )
    return findings


def _compare_values(name: str, values: np.ndarray, low: float, high: float) -> list[Finding]:
    """low, high: q01 and q99 of the policy's training data."""
    width = max(high - low, 1e-9)
    outside = float(((values < low - 0.05 * width) | (values > high + 0.05 * width)).mean())
    q01, q99 = np.quantile(values, [0.01, 0.99])
    share = (q99 - q01) / width
    if outside > 0.05:
        text = (
            f"{name}: {100 * outside:.0f} % of the rows are outside the policy's "
            f"{low:.4g} to {high:.4g}: its normalisation would clip them"
        )
        return [Finding("outside the policy's range", "warning", text, [name])]
    if share < 0.2:
        text = (
            f"{name}: the data covers {100 * share:.0f} % of the policy's range: "
            "few action bins are used"
        )
        return [Finding("small part of the policy's range", "warning", text, [name])]
    return []
