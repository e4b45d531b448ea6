"""Compact summaries of a study's results, which are committed, and their CSV files.

Success and right answers are kept as bits in order (hexadecimal digits), so that paired tests and
bootstrap intervals need no per-episode rows. A digest detects any other difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla.benchmarks.base import EpisodeResult
from vla.errors import ConfigError
from vla.training.curves import curves_table
from vla.training.provenance import COLUMNS
from vla.utils.csv_tables import read_table

SUCCESS = (
    *("recipe", "task", "first_seed", "episodes", "successes", "failed", "mean_steps"),
    *("outcomes", "digest"),
)
VQA = ("recipe", "test", "questions", "right", "outcomes", "digest")
CURVES = ("recipe", "metric", "step", "value", "digest")
LATENCY = ("recipe", "actions", "median_ms", "times_first")
PROVENANCE = ("recipe", *COLUMNS)
EPISODES = ("recipe", "task", "seed", "success", "steps", "failed")  # rows in ``runs``
ANSWERS = ("recipe", "test", "key", "question", "right")  # rows in ``runs``
TIMES = ("recipe", "action", "ms")  # rows in ``runs``
RATES = ("images_per_second", "flop_utilisation")  # metrics that depend on the machine

Outcomes = dict[str, dict[str, np.ndarray]]  # recipe -> task or test -> bits in order


def pack_bits(bits: Iterable[bool]) -> str:
    """Hexadecimal digits of bits, first bit first; the last digit is padded with zeros."""
    text = "".join("1" if bit else "0" for bit in bits)
    digits = -(-len(text) // 4)
    return f"{int(text.ljust(4 * digits, '0'), 2):0{digits}x}" if text else ""


def unpack_bits(digits: str, count: int) -> np.ndarray:
    """The first ``count`` bits (count,) bool of ``pack_bits``."""
    text = f"{int(digits or '0', 16):0{4 * len(digits)}b}"
    return np.array([c == "1" for c in text[:count]], dtype=bool)


def digest(rows: Iterable[Sequence[Any]]) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of rows."""
    text = "\n".join(",".join(str(v) for v in row) for row in rows)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def success_row(recipe: str, task: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summary of the episodes of one task; ``rows`` are ``EPISODES`` rows in seed order."""
    won = [int(r["success"]) == 1 for r in rows]
    return {
        "recipe": recipe,
        "task": task,
        "first_seed": rows[0]["seed"],
        "episodes": len(rows),
        "successes": sum(won),
        "failed": sum(int(r["failed"]) for r in rows),
        "mean_steps": f"{np.mean([int(r['steps']) for r in rows]):.3f}",
        "outcomes": pack_bits(won),
        "digest": digest([r[c] for c in EPISODES[2:]] for r in rows),
    }


def episode_rows(recipe: str, results: Sequence[EpisodeResult]) -> list[dict[str, Any]]:
    """``EPISODES`` rows of evaluation results."""
    return [
        {
            "recipe": recipe,
            "task": r.task,
            "seed": r.seed,
            "success": int(r.success),
            "steps": r.steps,
            "failed": int(r.metrics.get("failed", 0)),
        }
        for r in results
    ]


def success_rows(recipe: str, results: Sequence[EpisodeResult]) -> list[dict[str, Any]]:
    """Summaries of evaluation results, one row for every task."""
    rows = sorted(episode_rows(recipe, results), key=lambda r: (r["task"], r["seed"]))
    tasks = dict.fromkeys(r["task"] for r in rows)
    return [success_row(recipe, t, [r for r in rows if r["task"] == t]) for t in tasks]


def vqa_rows(recipe: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Summaries of answers by test; ``rows`` are ``ANSWERS`` rows in the order of the questions."""
    by_test: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_test.setdefault(row["test"], []).append(row)
    found = []
    for test, own in sorted(by_test.items()):
        right = [int(r["right"]) == 1 for r in own]
        found.append(
            {
                "recipe": recipe,
                "test": test,
                "questions": len(own),
                "right": sum(right),
                "outcomes": pack_bits(right),
                "digest": digest([r[c] for c in ANSWERS[2:]] for r in own),
            }
        )
    return found


def curve_rows(recipe: str, run: Path) -> list[dict[str, Any]]:
    """Last value and digest of every logged metric of a run, except rates.

    Args:
        run: the run's folder, or one CSV file of its metrics.
    """
    table = curves_table(run)
    found = []
    for metric in sorted(table[0] if table else ()):
        points = [(r["step"], r[metric]) for r in table if r[metric]]
        if metric not in ("step", *RATES) and points:
            step, value = points[-1]
            row = {"recipe": recipe, "metric": metric, "step": step, "value": value}
            found.append(row | {"digest": digest(points)})
    return found


def latency_rows(order: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Median time to one action by recipe, and its ratio to the first recipe of ``order``."""
    by_recipe: dict[str, list[float]] = {}
    for row in rows:
        by_recipe.setdefault(row["recipe"], []).append(float(row["ms"]))
    medians = {n: float(np.median(by_recipe[n])) for n in order if n in by_recipe}
    first = next(iter(medians.values()))
    return [
        {
            "recipe": name,
            "actions": len(by_recipe[name]),
            "median_ms": f"{ms:.4f}",
            "times_first": f"{ms / first:.4f}",
        }
        for name, ms in medians.items()
    ]


@dataclass(frozen=True)
class Results:
    """The summaries of a study's ``out`` folder."""

    success: Outcomes
    answers: Outcomes
    latency: list[dict[str, str]]


def read_results(out: Path) -> Results:
    """The summaries in a folder; empty where a file is missing.

    Raises:
        ConfigError: a file has other columns, or recipes have different episodes of one task.
    """
    success: Outcomes = {}
    answers: Outcomes = {}
    seeds: dict[str, tuple[str, str]] = {}
    for row in read_table(out / "success.csv", SUCCESS):
        same = (row["first_seed"], row["episodes"])
        if seeds.setdefault(row["task"], same) != same:
            raise ConfigError(
                f"{out / 'success.csv'}: recipes have different episodes of task {row['task']!r} "
                "(first seed, number), so they cannot be compared; use another out folder"
            )
        bits = unpack_bits(row["outcomes"], int(row["episodes"]))
        success.setdefault(row["recipe"], {})[row["task"]] = bits
    for row in read_table(out / "vqa.csv", VQA):
        bits = unpack_bits(row["outcomes"], int(row["questions"]))
        answers.setdefault(row["recipe"], {})[row["test"]] = bits
    return Results(success, answers, read_table(out / "latency.csv", LATENCY))
