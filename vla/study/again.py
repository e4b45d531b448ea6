"""``vla study --again``: recipes made once more, from nothing, beside what the study has, and compared with it row for row."""

from __future__ import annotations

import filecmp
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from vla.config import ConfigError
from vla.report import curves_table
from vla.study.config import ANSWERS, EPISODES, Recipe, StudyConfig, policy_of
from vla.study.measure import results_alone
from vla.study.run import carry_out
from vla.tables import Differs, read_table, write_table

COLUMNS = ("recipe", "trained", "episodes", "episodes_other", "answers", "answers_other", "curves", "curves_other", "weights")
RATES = ("images_per_second", "flop_utilisation")  # the machine's


def apart(config: StudyConfig, names: Sequence[str]) -> StudyConfig:
    """The study with ``names`` still to be made, in ``runs/again`` (a saved policy: driven and asked); what they start from is taken as it is, or made there if it is nowhere."""
    home = Path(config.runs) / "again"
    recipes = dict(config.recipes)
    for name, recipe in config.recipes.items():
        if name in names or not (recipe.of or policy_of(config, name).is_dir()):
            recipes[name] = replace(recipe, keep=False)
        elif not recipe.of:
            recipes[name] = Recipe(policy=str(policy_of(config, name)), acts=recipe.acts, answers=recipe.answers)
    return replace(config, recipes=recipes, pairs=[], out=str(home), runs=str(home / "runs"))


def compare(config: StudyConfig, fresh: StudyConfig, name: str) -> dict[str, Any]:
    """A row of ``again.csv``. trained: whether the policy is a new one; episodes, answers: rows here, ``_other``: of them missing or not the same
    there; curves: columns of ``metrics_NAME.csv``, but rates; curves_other: those with other numbers; weights: same, other, or nothing where the study keeps none."""
    found: dict[str, Any] = {"recipe": name, "trained": int(fresh.recipes[name].config is not None)}
    for kind, columns in (("episodes", EPISODES), ("answers", ANSWERS)):
        was, new = (
            {tuple(r.values()) for r in read_table(Path(c.out) / f"{kind}.csv", columns) if r["recipe"] == name}
            for c in (config, fresh)
        )
        found |= {kind: len(was), f"{kind}_other": max(len(was - new), len(new - was))}
    # in one form: the oldest are the logger's own lines, with every digit
    was_curves, new_curves = (curves_table(Path(c.out) / f"metrics_{name}.csv") for c in (config, fresh))
    if found["trained"] and was_curves:
        names = [c for c in was_curves[0] if c not in RATES]
        other = [c for c in names if [r[c] for r in was_curves] != [r.get(c) for r in new_curves]]
        found |= {"curves": len(names), "curves_other": " ".join(other)}
    kept = Path(config.out) / name / "model.safetensors"
    if found["trained"] and config.recipes[name].keep and kept.is_file():
        same = filecmp.cmp(kept, policy_of(fresh, name) / "model.safetensors", shallow=False)
        found["weights"] = "same" if same else "other"
    return {c: found.get(c, "") for c in COLUMNS}


def make_again(config: StudyConfig, names: Sequence[str]) -> None:
    """``vla study --again``: resumable, and shared by processes, as the study itself (to begin anew, remove ``runs/again``); rows go into ``again.csv`` beside the study's own.

    Raises:
        ConfigError: there are no rows of a recipe to compare with.
        Differs: an episode or an answer is another; the new rows stay where the message says.
    """
    out = Path(config.out)
    known = {r["recipe"] for kind in ("episodes", "answers") for r in read_table(out / f"{kind}.csv")}
    wanted = list(names) or [n for n in config.recipes if n in known]
    for name in wanted:
        if name not in known:
            raise ConfigError(f"--again {name}: {out} has no rows of it to compare with; without --again they are made")
    fresh = apart(config, wanted)
    worse, seen = [], set[str]()
    for name in chain(carry_out(fresh, wanted), wanted):  # and those that were done, or that another process made
        if name not in wanted or name in seen:
            continue
        seen.add(name)
        row = compare(config, fresh, name)
        with results_alone(config):
            rows = [r for r in read_table(out / "again.csv", COLUMNS) if r["recipe"] != name]
            write_table(out / "again.csv", [*rows, row], COLUMNS)
        print(", ".join(f"{k} {v}" for k, v in row.items() if v != ""), flush=True)
        if row["episodes_other"] or row["answers_other"]:
            worse.append(f"{name} ({row['episodes_other']} episodes, {row['answers_other']} answers)")
    if worse:
        raise Differs(f"{out}: not the same when made again: {', '.join(worse)}; the new rows are in {fresh.out}")
