"""``vla study --reproduce``: run recipes again from the start and compare the summaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from vla.errors import ConfigError, ReproductionMismatch
from vla.experiments.study.config import Recipe, StudyConfig, policy_of
from vla.experiments.study.execute import execute
from vla.experiments.study.measure import replace_rows, results_lock
from vla.experiments.study.summaries import CURVES, SUCCESS, VQA
from vla.utils.csv_tables import read_table

COLUMNS = (
    *("recipe", "trained", "tasks", "tasks_different", "tests", "tests_different"),
    *("curves", "curves_different"),
)
_KINDS = (  # name in COLUMNS, file, its columns, column that names a row
    ("tasks", "success.csv", SUCCESS, "task"),
    ("tests", "vqa.csv", VQA, "test"),
    ("curves", "curves.csv", CURVES, "metric"),
)


def copy_for_reproduction(config: StudyConfig, names: Sequence[str]) -> StudyConfig:
    """The study in ``runs/reproduce``, where ``names`` have no results yet.

    Existing policies that ``names`` start from are used; missing ones are trained there.
    """
    home = Path(config.runs) / "reproduce"
    recipes = dict(config.recipes)
    for name, recipe in config.recipes.items():
        if name not in names and not recipe.reuse_policy and policy_of(config, name).is_dir():
            recipes[name] = Recipe(
                policy=str(policy_of(config, name)), rollouts=recipe.rollouts, vqa=recipe.vqa
            )
        elif recipe.made_by:  # evaluated again, not copied from the other study
            recipes[name] = replace(recipe, made_by=None)
    return replace(config, recipes=recipes, pairs=[], out=str(home), runs=str(home / "runs"))


def compare(config: StudyConfig, fresh: StudyConfig, name: str) -> dict[str, Any]:
    """A row of ``reproduced.csv``: for every kind of summary the number of rows and differences.

    ``trained`` is 1 if the policy was trained again. ``curves_different`` names the metrics.
    """
    trained = int(fresh.recipes[name].config is not None)
    found: dict[str, Any] = {"recipe": name, "trained": trained}
    for kind, file, columns, key in _KINDS:
        old, new = (
            {r[key]: r for r in read_table(Path(c.out) / file, columns) if r["recipe"] == name}
            for c in (config, fresh)
        )
        different = [k for k in {**old, **new} if old.get(k) != new.get(k)]
        if kind != "curves":
            found |= {kind: len(old), f"{kind}_different": len(different)}
        elif trained and old:
            found |= {kind: len(old), f"{kind}_different": " ".join(different)}
    return {c: found.get(c, "") for c in COLUMNS}


def reproduce_recipes(config: StudyConfig, names: Sequence[str]) -> None:
    """Run recipes again in ``runs/reproduce`` and write ``reproduced.csv`` beside the summaries.

    Like a study, it continues after a stop; remove ``runs/reproduce`` to start again.

    Raises:
        ConfigError: a recipe has no summaries to compare with.
        ReproductionMismatch: a task or a test has other results.
    """
    out = Path(config.out)
    known = {r["recipe"] for f in ("success.csv", "vqa.csv") for r in read_table(out / f)}
    wanted = list(names) or [n for n in config.recipes if n in known]
    for name in wanted:
        if name not in known:
            raise ConfigError(
                f"--reproduce {name}: {out} has no results of it to compare with; "
                "run it without --reproduce first"
            )
    fresh = copy_for_reproduction(config, wanted)
    mismatches, compared = [], set[str]()
    # ``execute`` skips recipes that are complete or that another process runs
    for name in chain(execute(fresh, wanted), wanted):
        if name not in wanted or name in compared:
            continue
        compared.add(name)
        row = compare(config, fresh, name)
        with results_lock(config):
            replace_rows(out / "reproduced.csv", [row], COLUMNS)
        print(", ".join(f"{k} {v}" for k, v in row.items() if v != ""), flush=True)
        if row["tasks_different"] or row["tests_different"]:
            counts = f"{row['tasks_different']} tasks, {row['tests_different']} tests"
            mismatches.append(f"{name} ({counts})")
    if mismatches:
        raise ReproductionMismatch(
            f"{out}: different results: {', '.join(mismatches)}; the new rows are in {fresh.out}"
        )
