"""Train and evaluate the recipes of a study; complete recipes are skipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vla.config import load_config
from vla.errors import ConfigError, DataError
from vla.experiments.study.config import Recipe, StudyConfig, policy_of
from vla.experiments.study.measure import (
    missing_answers,
    missing_tasks,
    replace_rows,
    results_lock,
    run_questions,
    run_rollouts,
)
from vla.experiments.study.settings import pretrained_parts
from vla.experiments.study.summaries import CURVES, PROVENANCE, curve_rows
from vla.training.provenance import COLUMNS, FILE
from vla.utils.csv_tables import check_blocks, read_table
from vla.utils.locking import claim_jobs


def train_recipe(config: StudyConfig, name: str) -> Path:
    """Train a recipe, or continue its training; returns its policy.

    Summaries of the metrics go to ``curves.csv``, the software and machine to ``provenance.csv``.
    """
    from vla.training.run import train_from_file

    recipe, saved = config.recipes[name], policy_of(config, name)
    if recipe.config is None:
        return saved
    run = Path(config.runs) / name
    if not saved.is_dir():
        start = [f"init_from={policy_of(config, recipe.init_from)}"] if recipe.init_from else []
        saved = train_from_file(recipe.config, [*recipe.change, *start, f"output_dir={run}"])
    out = Path(config.out)
    with results_lock(config):
        if curves := curve_rows(name, run):
            replace_rows(out / "curves.csv", curves, CURVES)
        if made := [{"recipe": name} | r for r in read_table(run / FILE, COLUMNS)]:
            replace_rows(out / FILE, made, PROVENANCE)
    return saved


def incomplete(config: StudyConfig, name: str) -> bool:
    """True if a recipe has tasks or questions without a summary."""
    rollouts = config.recipes[name].rollouts and bool(missing_tasks(config, name))
    return rollouts or missing_answers(config, name)


def _required(recipe: Recipe) -> str | None:
    return recipe.init_from or recipe.reuse_policy


def needed(config: StudyConfig, names: Sequence[str]) -> list[str]:
    """Incomplete recipes of ``names`` and the recipes that they need policies of, in order."""
    found: set[str] = set()
    for name in reversed(list(config.recipes)):
        if name in names and incomplete(config, name):
            found.add(name)
        if name in found and not _can_start(config, name):
            found.add(str(_required(config.recipes[name])))
    return [n for n in config.recipes if n in found]


def _can_start(config: StudyConfig, name: str) -> bool:
    """True if a recipe's own policy, or the policy that it needs, exists."""
    required = _required(config.recipes[name])
    return (
        required is None or policy_of(config, name).is_dir() or policy_of(config, required).is_dir()
    )


def check_ready(config: StudyConfig, names: Sequence[str]) -> None:
    """Find errors before the first training run that would stop the study hours later.

    Raises:
        ConfigError: an unknown setting, data that is not packed, a missing package of weights, a
            missing saved policy, or a README without the place of a table.
        DataError: the data with the questions is not packed.
    """
    from vla.data.manifest import load_manifest
    from vla.models.pretrained import PretrainedError, locate
    from vla.training.run import RunConfig

    check_blocks(Path(config.out) / "README.md")
    if config.vqa is not None and any(config.recipes[n].vqa for n in names):
        load_manifest(config.vqa)
    for name in names:
        recipe = config.recipes[name]
        if recipe.policy:
            _check_policy(config, name, Path(recipe.policy))
        if recipe.config is None or policy_of(config, name).is_dir():
            continue
        run: RunConfig = load_config(recipe.config, recipe.change, RunConfig)
        try:
            for folder in run.data.datasets.values():
                load_manifest(folder)
            for _, weights in pretrained_parts(run.policy):
                if weights.startswith("package:"):
                    locate(weights)
        except (DataError, PretrainedError) as error:
            raise ConfigError(f"recipes.{name}: {error}") from error


def _check_policy(config: StudyConfig, name: str, policy: Path) -> None:
    made_by = config.recipes[name].made_by
    own = policy.is_relative_to(config.runs)  # an earlier recipe of this study may train it
    if policy.is_dir() or (own and made_by is None):
        return
    how = "train it first"
    if made_by is not None:
        how = f"train it with `vla study {made_by} --only {policy.parent.name}`"
    raise ConfigError(
        f"recipes.{name}.policy={policy}: no such folder; {how}, "
        "or choose other recipes with --only"
    )


def execute(config: StudyConfig, names: Sequence[str]) -> Iterator[str]:
    """Train and evaluate the incomplete recipes of ``names``; yields each when it is complete."""
    todo = needed(config, names)
    check_ready(config, todo)
    for name in claim_jobs(todo, Path(config.runs), lambda name: _can_start(config, name)):
        if name in needed(config, todo):  # another process may have completed it
            saved = train_recipe(config, name)
            if config.recipes[name].rollouts:
                run_rollouts(config, name, saved)
            run_questions(config, name, saved)
            yield name
