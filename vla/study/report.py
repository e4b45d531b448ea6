"""From a study's CSV files to its tables and paired tests; nothing is trained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vla.evaluate import Result, wilson
from vla.sim.suites import CELLS
from vla.study.config import ANSWERS, EPISODES, TIMES, StudyConfig
from vla.suites import mcnemar
from vla.tables import markdown, put, read_table

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


def column_interval(episodes: dict[str, list[Result]], cells: Sequence[str]) -> tuple[float, float]:
    """95 % interval of a column: Wilson's over its pooled episodes (its cells have as many episodes each)."""
    pooled = [r.success for c in cells for r in episodes[c]]
    return wilson(sum(pooled), len(pooled))


def success_table(config: StudyConfig, episodes: Episodes) -> str:
    """Recipes by columns in %, with the averages; 95 % intervals, see ``column_interval`` and ``suite_interval``."""
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
                low, high = suite_interval(episodes[name], [c for member in averaged for c in columns[member]])
                shown.append(f"**{mean:.1f}** ({100 * low:.0f} to {100 * high:.0f})")
            else:
                low, high = column_interval(episodes[name], columns[column])
                shown.append(f"{mean:.1f} ({100 * low:.0f} to {100 * high:.0f})")
        lines.append(f"| {recipe.shown or name} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def cell_table(config: StudyConfig, episodes: Episodes) -> str:
    """The cells of columns that are means of several, in %; empty where there are none."""
    cells = [c for members in columns_of(config.cell_names()).values() if len(members) > 1 for c in members]
    rows = []
    for name in episodes if cells else ():
        shown = [config.recipes[name].shown or name]
        for cell in cells:
            won = [r.success for r in episodes[name].get(cell, [])]
            low, high = wilson(sum(won), len(won)) if won else (0.0, 0.0)
            shown.append(f"{100 * np.mean(won):.1f} ({100 * low:.0f} to {100 * high:.0f})" if won else "")
        rows.append(shown)
    return markdown(["recipe", *(c.replace("_", " ") for c in cells)], rows) if rows else ""


def suite_cells(config: StudyConfig) -> dict[str, list[str]]:
    """Suite -> its cells that the study has; skills are a suite together."""
    suites: dict[str, list[str]] = {}
    for cell in config.cell_names():
        suites.setdefault(CELLS[cell].suite if cell in CELLS else "all skills", []).append(cell)
    return suites


def suite_share(episodes: dict[str, list[Result]], cells: Sequence[str]) -> float | None:
    """Mean over the suite's columns, as in the paper's averages; None while a cell has no episodes."""
    shares = [column_share(episodes, members) for members in columns_of(cells).values()]
    return None if any(s is None for s in shares) else float(np.mean([s for s in shares if s is not None]))


def suite_interval(episodes: dict[str, list[Result]], cells: Sequence[str]) -> tuple[float, float]:
    """95 % interval of ``suite_share``: the columns' intervals, combined (MOVER; Zou and Donner, Statistics in Medicine 27, 2008)."""
    below, above, columns = 0.0, 0.0, columns_of(cells)
    for members in columns.values():
        share, (low, high) = column_share(episodes, members), column_interval(episodes, members)
        assert share is not None
        below, above = below + (share - low) ** 2, above + (high - share) ** 2
    mean = suite_share(episodes, cells)
    assert mean is not None
    return mean - below**0.5 / len(columns), mean + above**0.5 / len(columns)


def ratio_interval(
    ours: dict[str, list[Result]], theirs: dict[str, list[Result]], cells: Sequence[str], rounds: int = 2000
) -> tuple[float, float]:
    """95 % interval of the ratio of two suite averages: the same episodes of both are drawn again, cell by cell (bootstrap, fixed seed)."""
    rng = np.random.default_rng(0)
    sums = np.zeros((2, rounds))
    for members in columns_of(cells).values():
        for cell in members:
            pair = [{r.seed: r.success for r in side[cell]} for side in (ours, theirs)]
            both = np.array([[side[s] for s in sorted(pair[0])] for side in pair], dtype=float)
            drawn = rng.integers(both.shape[1], size=(rounds, both.shape[1]))
            sums += both[:, drawn].mean(2) / len(members)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = np.nanpercentile(sums[0] / sums[1], [2.5, 97.5], method="nearest")
    return float(low), float(high)


def pair_table(config: StudyConfig, episodes: Episodes) -> str:
    """By suite, on the episodes that both recipes have: both averages, their ratio, and an exact McNemar test."""
    header = ["first", "second", "episodes of", "pairs", "first, %", "second, %", "ratio", "only first", "only second", "p"]
    rows = []
    for a, b in config.pairs:
        for suite, cells in suite_cells(config).items():
            ours, theirs = episodes.get(a, {}), episodes.get(b, {})
            shares = [suite_share(side, cells) for side in (ours, theirs)]
            if shares[0] is None or shares[1] is None:
                continue
            m = mcnemar(*([r for c in cells for r in side[c]] for side in (ours, theirs)))
            ratio = "second won none"
            if shares[1]:
                low, high = ratio_interval(ours, theirs, cells)
                ratio = f"{shares[0] / shares[1]:.2f} ({low:.2f} to {high:.2f})"
            names = [config.recipes[n].shown or n for n in (a, b)]
            averages = [f"{100 * s:.1f}" for s in shares if s is not None]
            rows.append([*names, suite, str(m["n"]), *averages, ratio, str(m["only_ours"]), str(m["only_theirs"]), f"{m['p']:.2g}"])
    return markdown(header, rows)


def answer_table(config: StudyConfig, rows: list[dict[str, str]]) -> str:
    """Share of right answers by test in %; the number of questions behind each test's name."""
    right: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for r in rows:
        right[r["recipe"]][r["test"]].append(int(r["right"]))
    tests = sorted({r["test"] for r in rows})
    most = {t: max(len(of[t]) for of in right.values()) for t in tests}
    lines = ["| recipe | all | " + " | ".join(f"{t} ({most[t]})" for t in tests) + " |", "|---" * (len(tests) + 2) + "|"]
    for name in config.recipes:
        if name in right:
            every = [v for values in right[name].values() for v in values]
            low, high = wilson(sum(every), len(every))
            cells = [f"{100 * np.mean(right[name][t]):.1f}" if right[name][t] else "" for t in tests]
            whole = f"{100 * np.mean(every):.1f} ({100 * low:.0f} to {100 * high:.0f})"
            lines.append(f"| {config.recipes[name].shown or name} | {whole} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def latency_table(config: StudyConfig, rows: list[dict[str, str]]) -> str:
    """Medians of the time to one action, and how many times the first recipe's."""
    by_recipe: dict[str, list[float]] = defaultdict(list)
    for r in rows:
        by_recipe[r["recipe"]].append(float(r["ms"]))
    medians = {n: float(np.median(by_recipe[n])) for n in config.recipes if n in by_recipe}
    first = next(iter(medians.values()))
    shown = [[config.recipes[n].shown or n, f"{m:.1f}", f"{m / first:.2f}", str(len(by_recipe[n]))] for n, m in medians.items()]
    return markdown(["recipe", "ms an action", "times the first", "actions timed"], shown)


def tables(config: StudyConfig) -> dict[str, str]:
    """Every table there are rows for, by name: settings, provenance, success, cells, pairs, answers, latency."""
    from vla.study.settings import provenance_table, settings_table

    out = Path(config.out)
    episodes, answers, times = read_episodes(out), read_table(out / "answers.csv", ANSWERS), read_table(out / "latency.csv", TIMES)
    found = {}
    if (episodes or answers) and (settings := settings_table(config)):
        found["settings"] = settings
    if made := provenance_table(config):
        found["provenance"] = made
    if episodes:
        found["success"] = success_table(config, episodes)
        if by_cell := cell_table(config, {n: episodes[n] for n in config.recipes if n in episodes}):
            found["cells"] = by_cell
        if config.pairs:
            found["pairs"] = pair_table(config, episodes)
    if answers:
        found["answers"] = answer_table(config, answers)
    if times:
        found["latency"] = latency_table(config, times)
    return found


TITLES = {
    "settings": "What every recipe had, from its configuration",
    "provenance": "What every training was made with, from its first step and from every one at which it went on",
    "success": "Success in %, {} episodes a cell (95 % Wilson intervals)",
    "cells": "The cells of columns that are means of several, success in %",
    "pairs": "The same episodes in pairs: averages, their ratio (bootstrap over episodes), exact McNemar test",
    "answers": "Questions about held-out web pictures, right answers in %",
    "latency": "Time to one action, one picture at a time",
}


def report_text(config: StudyConfig) -> str:
    """Every table in Markdown; empty where there are no rows yet."""
    parts = [f"{TITLES[name].format(config.episodes)}:\n\n{text}\n" for name, text in tables(config).items()]
    return "\n".join(parts)


def write_report(config: StudyConfig) -> None:
    """``report.md``, the figures beside the CSV files, and the tables that the folder's README has a place for."""
    from vla.study.figures import draw

    out, text = Path(config.out), report_text(config)
    if not text:
        return
    draw(config, out)
    (out / "report.md").write_text(text, encoding="utf-8")
    readme = out / "README.md"
    for name, table in tables(config).items():
        if readme.is_file() and f"<!-- {name} -->" in readme.read_text(encoding="utf-8"):
            put(readme, name, table)
