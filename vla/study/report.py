"""From a study's CSV files to its table, paired tests and figures; nothing is trained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vla.evaluate import Result, wilson
from vla.sim.suites import CELLS
from vla.study.run import ANSWERS, EPISODES, StudyConfig
from vla.suites import mcnemar
from vla.tables import read_table

Episodes = dict[str, dict[str, list[Result]]]  # recipe -> cell -> episodes


def read_episodes(out: Path) -> Episodes:
    """All of ``episodes.csv``."""
    found: Episodes = defaultdict(lambda: defaultdict(list))
    for r in read_table(out / "episodes.csv", EPISODES):
        result = Result(int(r["seed"]), r["cell"], "", r["success"] == "1", int(r["steps"]), r["failed"] == "1")
        found[r["recipe"]][r["cell"]].append(result)
    return found


def columns_of(cells: Sequence[str]) -> dict[str, list[str]]:
    """Column -> its cells: the paper's columns where they are known, else a cell (a skill) each."""
    columns: dict[str, list[str]] = {}
    for cell in cells:
        columns.setdefault(CELLS[cell].column if cell in CELLS else cell, []).append(cell)
    return columns


def _groups(cells: Sequence[str]) -> dict[str, list[str]]:
    """Average -> the columns it is the mean of."""
    suites: dict[str, list[str]] = {}
    for cell in cells:
        if cell in CELLS and CELLS[cell].suite != "seen" and CELLS[cell].column not in suites.setdefault(CELLS[cell].suite, []):
            suites[CELLS[cell].suite].append(CELLS[cell].column)
    return suites


def column_share(episodes: dict[str, list[Result]], cells: Sequence[str]) -> float | None:
    """Mean over a column's cells; None while one has no episodes."""
    if not all(episodes.get(c) for c in cells):
        return None
    return float(np.mean([np.mean([r.success for r in episodes[c]]) for c in cells]))


def success_table(config: StudyConfig, episodes: Episodes) -> str:
    """Recipes by columns in %, with the averages; a column's 95 % interval is Wilson's over its pooled episodes."""
    cells = config.cell_names()
    columns, groups = columns_of(cells), _groups(cells)
    order = list(columns)
    for suite, members in groups.items():
        order.insert(order.index(members[-1]) + 1, f"**{suite}**")
    lines = ["| recipe | " + " | ".join(order) + " |", "|---" * (len(order) + 1) + "|"]
    for name, recipe in config.recipes.items():
        if name not in episodes:
            continue
        shown = []
        for column in order:
            averaged = groups.get(column.strip("*")) if column.startswith("**") else None
            shares = [column_share(episodes[name], columns[c]) for c in averaged or [column]]
            if any(s is None for s in shares):
                shown.append("")
                continue
            mean = 100 * float(np.mean([s for s in shares if s is not None]))
            if averaged:
                shown.append(f"**{mean:.1f}**")
                continue
            pooled = [r.success for c in columns[column] for r in episodes[name][c]]
            low, high = wilson(sum(pooled), len(pooled))
            shown.append(f"{mean:.1f} ({100 * low:.0f} to {100 * high:.0f})")
        lines.append(f"| {recipe.shown or name} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def pair_table(config: StudyConfig, episodes: Episodes) -> str:
    """Exact McNemar tests, by suite, on the episodes that both recipes have."""
    lines = ["| first | second | episodes of | pairs | only first | only second | p |", "|---|---|---|---|---|---|---|"]
    suites: dict[str, list[str]] = {}
    for cell in config.cell_names():
        suites.setdefault(CELLS[cell].suite if cell in CELLS else "all skills", []).append(cell)
    for a, b in config.pairs:
        for suite, cells in suites.items():
            ours, theirs = ([r for c in cells for r in episodes.get(n, {}).get(c, [])] for n in (a, b))
            if ours and len(ours) == len(theirs):
                m = mcnemar(ours, theirs)
                first, second = (config.recipes[n].shown or n for n in (a, b))
                lines.append(f"| {first} | {second} | {suite} | {m['n']} | {m['only_ours']} | {m['only_theirs']} | {m['p']:.2g} |")
    return "\n".join(lines)


def answer_table(config: StudyConfig, rows: list[dict[str, str]]) -> str:
    """Share of right answers by test in %."""
    right: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for r in rows:
        right[r["recipe"]][r["test"]].append(int(r["right"]))
    tests = sorted({r["test"] for r in rows})
    lines = ["| recipe | all | " + " | ".join(tests) + " |", "|---" * (len(tests) + 2) + "|"]
    for name in config.recipes:
        if name in right:
            every = [v for values in right[name].values() for v in values]
            low, high = wilson(sum(every), len(every))
            cells = [f"{100 * np.mean(right[name][t]):.1f}" if right[name][t] else "" for t in tests]
            whole = f"{100 * np.mean(every):.1f} ({100 * low:.0f} to {100 * high:.0f})"
            lines.append(f"| {config.recipes[name].shown or name} | {whole} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def bars(config: StudyConfig, episodes: Episodes) -> Any:
    """Success by column, a colour a recipe, Wilson intervals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = columns_of(config.cell_names())
    names = [n for n in config.recipes if n in episodes]
    figure, axis = plt.subplots(figsize=(max(5.0, 0.32 * len(columns) * (len(names) + 1.2)), 3.6), constrained_layout=True)
    width = 0.84 / len(names)
    for k, name in enumerate(names):
        for n, cells in enumerate(columns.values()):
            share = column_share(episodes[name], cells)
            if share is None:
                continue
            pooled = [r.success for c in cells for r in episodes[name][c]]
            low, high = wilson(sum(pooled), len(pooled))
            at = n + (k - (len(names) - 1) / 2) * width
            label = (config.recipes[name].shown or name) if n == 0 else None
            error = [[max(0.0, 100 * (share - low))], [max(0.0, 100 * (high - share))]]
            axis.bar(at, 100 * share, width * 0.92, yerr=error, color=f"C{k}", label=label, error_kw={"lw": 0.8, "capsize": 1.5})
    axis.set_xticks(range(len(columns)), [c.replace(" ", "\n") for c in columns], fontsize=8)
    axis.set_ylabel("success in % (95 % interval)")
    axis.set_ylim(0, 100)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False, ncols=min(4, len(names)), loc="upper center", bbox_to_anchor=(0.5, 1.16))
    return figure


def report_text(config: StudyConfig) -> str:
    """Every table in Markdown; empty where there are no rows yet."""
    episodes, answers = read_episodes(Path(config.out)), read_table(Path(config.out) / "answers.csv", ANSWERS)
    parts = []
    if episodes:
        parts += [f"Success in %, {config.episodes} episodes a cell (95 % Wilson intervals):", success_table(config, episodes)]
        if config.pairs:
            parts += ["Paired episodes (McNemar, exact):", pair_table(config, episodes)]
    if answers:
        parts += ["Questions about held-out web pictures, right answers in %:", answer_table(config, answers)]
    return "\n\n".join(parts) + "\n" if parts else ""


def write_report(config: StudyConfig) -> None:
    """``report.md`` and ``success.png`` / ``.svg`` beside the CSV files."""
    import matplotlib.pyplot as plt

    out, text, episodes = Path(config.out), report_text(config), read_episodes(Path(config.out))
    if episodes:
        figure = bars(config, episodes)
        with plt.rc_context({"svg.hashsalt": "vla", "svg.fonttype": "none"}):
            figure.savefig(out / "success.png", dpi=150)
            figure.savefig(out / "success.svg", metadata={"Date": None})
        plt.close(figure)
    if text:
        (out / "report.md").write_text(text, encoding="utf-8")
