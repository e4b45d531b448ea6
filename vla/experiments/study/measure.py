"""Evaluate a study's policies in the simulator and on questions; rows are written task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from vla.benchmarks.base import Task
from vla.evaluation.rollout import evaluate, open_benchmark
from vla.experiments.study.config import StudyConfig, load_study
from vla.experiments.study.summaries import (
    ANSWERS,
    EPISODES,
    SUCCESS,
    VQA,
    episode_rows,
    success_row,
    vqa_rows,
)
from vla.policies.checkpoint import load_policy
from vla.utils.csv_tables import read_table, write_table


def results_lock(config: StudyConfig) -> FileLock:
    """Lock of a study's summaries and report; several processes may share a study."""
    Path(config.runs).mkdir(parents=True, exist_ok=True)
    return FileLock(Path(config.runs) / ".results.lock")


def replace_rows(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    key: Sequence[str] = ("recipe",),
) -> None:
    """Write rows to a CSV file in place of earlier rows with the same ``key`` columns."""
    new = {tuple(str(r[k]) for k in key) for r in rows}
    others = [r for r in read_table(path, columns) if tuple(r[k] for k in key) not in new]
    write_table(path, [*others, *rows], columns)


def missing_tasks(config: StudyConfig, name: str) -> list[Task]:
    """Tasks of which a recipe has no summary row."""
    rows = read_table(Path(config.out) / "success.csv", SUCCESS)
    done = {r["task"] for r in rows if r["recipe"] == name}
    return [task for task in config.selected_tasks() if task.id not in done]


def missing_answers(config: StudyConfig, name: str) -> bool:
    """True if a recipe answers questions and has no summary of them."""
    rows = read_table(Path(config.out) / "vqa.csv", VQA)
    done = any(r["recipe"] == name for r in rows)
    return config.vqa is not None and config.recipes[name].vqa and not done


def _rows_of_other_study(
    config: StudyConfig, name: str, tasks: Sequence[Task]
) -> list[dict[str, str]]:
    """Summaries of the same policy on the same episodes in the study that trains it."""
    recipe = config.recipes[name]
    if recipe.made_by is None:
        return []
    other, theirs = load_study(recipe.made_by), Path(str(recipe.policy)).parent.name
    wanted = {(theirs, t.id, str(config.seed), str(config.episodes)) for t in tasks}
    return [
        r | {"recipe": name}
        for r in read_table(Path(other.out) / "success.csv", SUCCESS)
        if (r["recipe"], r["task"], r["first_seed"], r["episodes"]) in wanted
    ]


def load_recipe_policy(config: StudyConfig, name: str, saved: Path) -> Any:
    """The policy of a recipe, bound to the study's robot, with the recipe's evaluation settings."""
    policy: Any = load_policy(saved)
    margin = config.recipes[name].plan_switch_margin
    if margin is not None:
        policy.head(config.robot).plan_switch_margin = margin
    return policy.robot(config.robot)


def run_rollouts(config: StudyConfig, name: str, saved: Path) -> None:
    """Evaluate a recipe on its missing tasks; each task is written when it is complete."""
    path, missing = Path(config.out) / "success.csv", missing_tasks(config, name)
    known = _rows_of_other_study(config, name, missing)
    if known:
        with results_lock(config):
            replace_rows(path, known, SUCCESS, ("recipe", "task"))
        print(f"{name}: {len(known)} tasks from {config.recipes[name].made_by}", flush=True)
    todo = [t for t in missing if t.id not in {r["task"] for r in known}]
    if not todo:
        return
    policy = load_recipe_policy(config, name, saved)
    benchmark = open_benchmark(policy.spec.benchmark, policy.spec.cameras)
    for task in benchmark.select([t.id for t in todo]):
        results, _ = evaluate(policy, benchmark, [task], config.episodes, seed=config.seed)
        rows = episode_rows(name, results)
        own = Path(config.runs) / name / "episodes.csv"
        with results_lock(config):
            replace_rows(own, rows, EPISODES, ("recipe", "task"))
            replace_rows(path, [success_row(name, task.id, rows)], SUCCESS, ("recipe", "task"))
        print(f"{name}, {task.id}: {sum(r.success for r in results)} of {len(results)}", flush=True)


def run_questions(config: StudyConfig, name: str, saved: Path) -> None:
    """Ask a recipe's policy the study's questions, unless its answers are known."""
    from vla.evaluation.vqa import answer_questions

    if config.vqa is None or not missing_answers(config, name):
        return
    policy: Any = load_policy(saved)
    rows = [
        {
            "recipe": name,
            "test": a.test,
            "key": a.key,
            "question": a.question,
            "right": int(a.correct),
        }
        for a in answer_questions(policy, config.vqa, config.questions)
    ]
    with results_lock(config):
        replace_rows(Path(config.runs) / name / "answers.csv", rows, ANSWERS)
        replace_rows(Path(config.out) / "vqa.csv", vqa_rows(name, rows), VQA)
