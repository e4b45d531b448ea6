"""A study's figures: success by column, and curves along an axis where the recipes are points on one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from vla.evaluate import wilson
from vla.study.config import ANSWERS, StudyConfig
from vla.study.report import (
    Episodes,
    column_interval,
    column_share,
    columns_of,
    read_episodes,
    suite_cells,
    suite_interval,
    suite_share,
)
from vla.tables import read_table


def bars(config: StudyConfig, episodes: Episodes) -> Any:
    """Success by column, a colour a recipe, Wilson intervals."""
    columns = columns_of(config.cell_names())
    names = [n for n, recipe in config.recipes.items() if n in episodes and recipe.drawn]
    wide = min(11.0, max(5.0, 0.32 * len(columns) * (len(names) + 1.2)))  # inches
    figure, axis = plt.subplots(figsize=(wide, 3.8), constrained_layout=True)
    width = 0.84 / len(names)
    for k, name in enumerate(names):
        for n, cells in enumerate(columns.values()):
            share = column_share(episodes[name], cells)
            if share is None:
                continue
            low, high = column_interval(episodes[name], cells)
            at = n + (k - (len(names) - 1) / 2) * width
            label = (config.recipes[name].shown or name) if n == 0 else None
            error = [[max(0.0, 100 * (share - low))], [max(0.0, 100 * (high - share))]]
            axis.bar(at, 100 * share, width * 0.92, yerr=error, color=f"C{k}", label=label, error_kw={"lw": 0.8, "capsize": 1.5})
    axis.set_xticks(range(len(columns)), [c.replace(" ", "\n") for c in columns], fontsize=8)
    axis.set_xlim(-0.6, len(columns) - 0.4)
    axis.set_ylabel("success in % (95 % interval)")
    axis.set_ylim(0, 100)
    axis.spines[["top", "right"]].set_visible(False)
    longest = max(len(text) for text in axis.get_legend_handles_labels()[1])
    beside = int(wide / (0.065 * longest + 0.6))  # a letter of 8 points is some 0.065 inches wide, its sign and margins 0.6
    axis.legend(fontsize=8, frameon=False, ncols=max(1, min(4, len(names), beside)), loc="lower center", bbox_to_anchor=(0.5, 1.02))
    return figure


def curves(config: StudyConfig, episodes: Episodes, answers: list[dict[str, str]]) -> Any:
    """Averages of the suites, and right answers, against the recipes' ``at``; bars: 95 % (``suite_interval``; Wilson's over the questions)."""
    points = sorted((r.at, n) for n, r in config.recipes.items() if r.at is not None)
    lines: dict[str, list[tuple[float, float, float, float]]] = {}
    for at, name in points:
        for suite, cells in suite_cells(config).items():
            share = suite_share(episodes.get(name, {}), cells)
            if share is not None:
                lines.setdefault(suite, []).append((at, share, *suite_interval(episodes[name], cells)))
        right = [int(r["right"]) for r in answers if r["recipe"] == name]
        if right:
            lines.setdefault("questions", []).append((at, float(np.mean(right)), *wilson(sum(right), len(right))))
    figure, axis = plt.subplots(figsize=(5.6, 3.6), constrained_layout=True)
    for k, (label, found) in enumerate(lines.items()):
        x, y, low, high = (100 * np.array(v) for v in zip(*found, strict=True))
        error = np.maximum(0.0, np.stack([y - low, high - y]))
        axis.errorbar(x / 100, y, yerr=error, color=f"C{k}", marker="o", ms=4, lw=1.5, capsize=2, elinewidth=0.8, label=label)
    axis.set_xlabel(config.axis or "")
    axis.set_ylabel("success or right answers in %")
    axis.set_ylim(0, 100)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False, loc="lower center", ncols=4, bbox_to_anchor=(0.5, 1.02))
    return figure


def draw(config: StudyConfig, out: Path) -> None:
    """``success`` and, with an axis, ``curves``: PNG and SVG each."""
    episodes, answers = read_episodes(out), read_table(out / "answers.csv", ANSWERS)
    figures = {"success": bars(config, episodes)} if episodes else {}
    known = {*episodes, *(r["recipe"] for r in answers)}
    if config.axis is not None and any(r.at is not None and n in known for n, r in config.recipes.items()):
        figures["curves"] = curves(config, episodes, answers)
    with plt.rc_context({"svg.hashsalt": "vla", "svg.fonttype": "none"}):
        for name, figure in figures.items():
            figure.savefig(out / f"{name}.png", dpi=150)
            figure.savefig(out / f"{name}.svg", metadata={"Date": None})
            plt.close(figure)
