"""Tables of a study, computed from its summaries: results, pairs, settings, README blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vla.benchmarks.base import Task
from vla.evaluation.statistics import mcnemar_of_pairs, wilson
from vla.experiments.study.averages import (
    column_interval,
    column_share,
    columns_of,
    group_interval,
    group_share,
    groups_of,
    ratio_interval,
)
from vla.experiments.study.config import StudyConfig, label_of
from vla.experiments.study.summaries import Results
from vla.utils.csv_tables import markdown

RESULTS = ("recipe", "kind", "name", "n", "percent", "low", "high")
PAIRS = (
    *("first", "second", "group", "pairs", "first_percent", "second_percent"),
    *("ratio", "ratio_low", "ratio_high", "only_first", "only_second", "p"),
)


def averaged_groups(tasks: Sequence[Task]) -> dict[str, list[Task]]:
    """Groups of more than one task."""
    return {group: own for group, own in groups_of(tasks).items() if len(own) > 1}


def result_rows(config: StudyConfig, results: Results) -> list[dict[str, Any]]:
    """Every share in % with its 95 % interval.

    ``kind`` is task (of a column with several tasks), column, group, test or questions.
    """
    tasks = config.selected_tasks()
    rows: list[dict[str, Any]] = []
    for recipe in config.recipes:
        success, answers = results.success.get(recipe, {}), results.answers.get(recipe, {})
        for name, own in columns_of(tasks).items():
            for task in own if len(own) > 1 else ():
                rows += _share_row(recipe, "task", task.id, success, [task])
            rows += _share_row(recipe, "column", name, success, own)
        for name, own in averaged_groups(tasks).items():
            rows += _share_row(recipe, "group", name, success, own)
        for test, right in answers.items():
            rows.append(_answers_row(recipe, "test", test, right))
        if answers:
            pooled = np.concatenate(list(answers.values()))
            rows.append(_answers_row(recipe, "questions", "all", pooled))
    return rows


def _share_row(
    recipe: str, kind: str, name: str, success: Mapping[str, np.ndarray], tasks: Sequence[Task]
) -> list[dict[str, Any]]:
    share = (group_share if kind == "group" else column_share)(success, tasks)
    if share is None:
        return []
    low, high = (group_interval if kind == "group" else column_interval)(success, tasks)
    count = sum(len(success[t.id]) for t in tasks)
    return [_row(recipe, kind, name, count, share, low, high)]


def _answers_row(recipe: str, kind: str, name: str, right: np.ndarray) -> dict[str, Any]:
    low, high = wilson(int(right.sum()), len(right))
    return _row(recipe, kind, name, len(right), float(right.mean()), low, high)


def _row(*values: Any) -> dict[str, Any]:
    shown = [*values[:4], *(f"{100 * v:.1f}" for v in values[4:])]
    return dict(zip(RESULTS, shown, strict=True))


def pair_rows(config: StudyConfig, results: Results) -> list[dict[str, Any]]:
    """By group: averages of both recipes, their ratio, and an exact McNemar test.

    The ratio is empty if the second recipe has no success.
    """
    rows = []
    groups = groups_of(config.selected_tasks())
    for pair in config.pairs:
        ours, theirs = (results.success.get(name, {}) for name in pair)
        for group, tasks in groups.items():
            first, second = group_share(ours, tasks), group_share(theirs, tasks)
            if first is None or second is None:
                continue
            test = mcnemar_of_pairs(
                *(np.concatenate([side[t.id] for t in tasks]).tolist() for side in (ours, theirs))
            )
            ratio = ["", "", ""]
            if second:
                low, high = ratio_interval(ours, theirs, tasks)
                ratio = [f"{v:.2f}" for v in (first / second, low, high)]
            shares = [f"{100 * first:.1f}", f"{100 * second:.1f}"]
            counts = [test["only_ours"], test["only_theirs"], f"{test['p']:.2g}"]
            values = [*pair, group, test["n"], *shares, *ratio, *counts]
            rows.append(dict(zip(PAIRS, values, strict=True)))
    return rows


def results_table(config: StudyConfig, results: Results) -> str:
    """Markdown: group averages and right answers in %, of the recipes in the figure."""
    rows = result_rows(config, results)
    groups = groups_of(config.selected_tasks())
    columns = {
        f"{group}, %": ("group", group) if len(own) > 1 else ("column", own[0].column or own[0].id)
        for group, own in groups.items()
    } | {"questions, %": ("questions", "all")}
    shares = {(r["recipe"], r["kind"], r["name"]): r["percent"] for r in rows}
    used = {n: key for n, key in columns.items() if any(k[1:] == key for k in shares)}
    shown = [n for n, recipe in config.recipes.items() if recipe.in_figure]
    measured = [n for n in shown if any(k[0] == n for k in shares)]
    lines = [
        [label_of(config, n), *(shares.get((n, *key), "") for key in used.values())]
        for n in measured
    ]
    return markdown(["recipe", *used], lines)


def latency_table(config: StudyConfig, rows: Iterable[Mapping[str, str]]) -> str:
    """Markdown: median time to one action, and its ratio to the first recipe."""
    lines = [
        [label_of(config, r["recipe"]), f"{float(ms):.1f}", f"{float(ratio):.2f}"]
        for r in rows
        for ms, ratio in [(r["median_ms"], r["times_first"])]
    ]
    return markdown(["recipe", "ms an action", "ratio"], lines)


def success_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Markdown of ``SUCCESS`` rows: success with its 95 % Wilson interval by task, and over all."""
    lines = []
    for recipe in dict.fromkeys(r["recipe"] for r in rows):
        own = [r for r in rows if r["recipe"] == recipe]
        parts = [(r["task"], [r]) for r in own] + ([("all", own)] if len(own) > 1 else [])
        for task, part in parts:
            won, count = (sum(int(r[c]) for r in part) for c in ("successes", "episodes"))
            shares = [f"{100 * v:.1f}" for v in (won / count, *wilson(won, count))]
            lines.append([recipe, task, str(count), *shares])
    header = ["policy", "task", "episodes", "success, %", "95 % low", "high"]
    return markdown(header, lines)


def readme_blocks(config: StudyConfig, results: Results) -> dict[str, str]:
    """Tables of the folder's README by marker: ``results`` and ``latency`` where known."""
    found = {}
    if results.success or results.answers:
        found["results"] = results_table(config, results)
    if results.latency:
        found["latency"] = latency_table(config, results.latency)
    return found
