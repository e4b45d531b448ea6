"""Summaries of studies for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vla.experiments.study.config import Recipe, StudyConfig
from vla.experiments.study.summaries import SUCCESS, VQA, success_row, vqa_rows
from vla.utils.csv_tables import write_table

TABLETOP = {"name": "tabletop"}


def episodes(task: str, successes: int, count: int = 10, recipe: str = "a") -> list[dict[str, Any]]:
    """Per-episode rows of which the first ``successes`` succeed."""
    return [
        {
            "recipe": recipe,
            "task": task,
            "seed": s,
            "success": int(s < successes),
            "steps": 5,
            "failed": 0,
        }
        for s in range(count)
    ]


def committed(folder: Path) -> StudyConfig:
    """A study with summaries of two recipes and answers of one."""
    tasks = ["seen", "objects_easy", "objects_hard", "symbol", "maths", "category", "person"]
    wins = {
        "good": dict(zip(tasks, (9, 8, 6, 7, 4, 2, 5), strict=True)),
        "bad": dict.fromkeys(tasks, 1),
    }
    rows = [success_row(n, t, episodes(t, k)) for n, own in wins.items() for t, k in own.items()]
    write_table(folder / "success.csv", rows, SUCCESS)
    answers = [
        {"recipe": "good", "test": t, "key": "0", "question": "", "right": r}
        for t, r in (("name", 1), ("name", 0), ("where", 1))
    ]
    write_table(folder / "vqa.csv", vqa_rows("good", answers), VQA)
    recipes = {"good": Recipe(policy="a", label="Good"), "bad": Recipe(policy="b")}
    out, runs = str(folder), str(folder / "r")
    return StudyConfig(recipes, out, runs, TABLETOP, tasks, 10, pairs=[("good", "bad")])
