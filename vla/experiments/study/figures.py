"""Figures of a study: success by column, and curves along the study's axis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from vla.evaluation.statistics import wilson
from vla.experiments.study.averages import (
    column_interval,
    column_share,
    columns_of,
    group_interval,
    group_share,
    groups_of,
)
from vla.experiments.study.config import StudyConfig, label_of
from vla.experiments.study.summaries import Outcomes, Results


def bars(config: StudyConfig, success: Outcomes) -> Any:
    """Success by column with Wilson intervals; one colour for each recipe."""
    columns = columns_of(config.selected_tasks())
    names = [n for n, recipe in config.recipes.items() if n in success and recipe.in_figure]
    inches = min(11.0, max(5.0, 0.32 * len(columns) * (len(names) + 1.2)))
    figure, axis = plt.subplots(figsize=(inches, 3.8), constrained_layout=True)
    width = 0.84 / len(names)
    for k, name in enumerate(names):
        for n, tasks in enumerate(columns.values()):
            share = column_share(success[name], tasks)
            if share is None:
                continue
            low, high = column_interval(success[name], tasks)
            axis.bar(
                n + (k - (len(names) - 1) / 2) * width,
                100 * share,
                width * 0.92,
                yerr=[[max(0.0, 100 * (share - low))], [max(0.0, 100 * (high - share))]],
                color=f"C{k}",
                label=label_of(config, name) if n == 0 else None,
                error_kw={"lw": 0.8, "capsize": 1.5},
            )
    axis.set_xticks(range(len(columns)), [c.replace(" ", "\n") for c in columns], fontsize=8)
    axis.set_xlim(-0.6, len(columns) - 0.4)
    axis.set_ylabel("success in % (95 % interval)")
    _finish(axis, _legend_columns(axis, inches, len(names)))
    return figure


def _legend_columns(axis: Any, inches: float, entries: int) -> int:
    """Number of legend columns that fit into the width of the figure."""
    longest = max(len(text) for text in axis.get_legend_handles_labels()[1])
    # a letter of 8 points is about 0.065 inches wide; colour and margins take 0.6
    return max(1, min(4, entries, int(inches / (0.065 * longest + 0.6))))


def curves(config: StudyConfig, results: Results) -> Any:
    """Group averages and right answers in % against the recipes' ``x``, with 95 % intervals."""
    points = sorted((r.x, n) for n, r in config.recipes.items() if r.x is not None)
    lines: dict[str, list[tuple[float, float, float, float]]] = {}
    for x, name in points:
        success = results.success.get(name, {})
        for group, tasks in groups_of(config.selected_tasks()).items():
            share = group_share(success, tasks)
            if share is not None:
                ends = group_interval(success, tasks)
                lines.setdefault(group, []).append((x, share, *ends))
        if name in results.answers:
            right = np.concatenate(list(results.answers[name].values()))
            ends = wilson(int(right.sum()), len(right))
            lines.setdefault("questions", []).append((x, float(right.mean()), *ends))
    figure, axis = plt.subplots(figsize=(5.6, 3.6), constrained_layout=True)
    for k, (label, found) in enumerate(lines.items()):
        positions, y, low, high = (np.array(v) for v in zip(*found, strict=True))
        axis.errorbar(
            positions,
            100 * y,
            yerr=100 * np.maximum(0.0, np.stack([y - low, high - y])),
            color=f"C{k}",
            marker="o",
            ms=4,
            lw=1.5,
            capsize=2,
            elinewidth=0.8,
            label=label,
        )
    axis.set_xlabel(config.axis or "")
    axis.set_ylabel("success or right answers in %")
    _finish(axis, 4)
    return figure


def _finish(axis: Any, columns: int) -> None:
    axis.set_ylim(0, 100)
    axis.spines[["top", "right"]].set_visible(False)
    place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.02)}
    axis.legend(fontsize=8, frameon=False, ncols=columns, **place)


def draw(config: StudyConfig, results: Results, out: Path) -> None:
    """``success.png`` and, for a study with an axis, ``curves.png``."""
    figures = {}
    if any(n in results.success and r.in_figure for n, r in config.recipes.items()):
        figures["success"] = bars(config, results.success)
    known = {*results.success, *results.answers}
    if config.axis and any(r.x is not None and n in known for n, r in config.recipes.items()):
        figures["curves"] = curves(config, results)
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.png", dpi=150)
        plt.close(figure)
