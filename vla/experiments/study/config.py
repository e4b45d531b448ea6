"""Configuration of a study: recipes, tasks, pairs, and where its policies are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vla.benchmarks.base import Task
from vla.config import load_config
from vla.errors import ConfigError
from vla.evaluation.rollout import SEED, open_benchmark


@dataclass(frozen=True)
class Recipe:
    """One policy of a study: trained from ``config``, a saved ``policy``, or ``reuse_policy``."""

    # YAML of a training run; a path relative to the study's file.
    config: str | None = None
    # ``key=value`` changes of the training run.
    change: list[str] = field(default_factory=list)
    # Recipe of this study whose trained policy initialises the training run.
    init_from: str | None = None
    # Folder of a saved policy, which is evaluated as it is.
    policy: str | None = None
    # YAML of the study that trains ``policy``, relative to this study's file; its results are
    # reused, and an error about a missing policy names it.
    made_by: str | None = None
    # Recipe of this study whose policy is evaluated with other settings.
    reuse_policy: str | None = None
    rollouts: bool = True  # evaluate in the simulator; false for a vision-language stage
    vqa: bool = True  # ask questions about images; false for policies without language output
    label: str | None = None  # name in tables and figures; null: the recipe's own name
    in_figure: bool = True  # draw bars for this recipe
    # Evaluate with this ``plan_switch_margin`` of the head, in nats, at least 0.
    plan_switch_margin: float | None = None
    x: float | None = None  # position on the study's ``axis``; null: not in the curves

    def __post_init__(self) -> None:
        if sum(source is not None for source in (self.config, self.policy, self.reuse_policy)) != 1:
            raise ValueError(
                "a recipe needs exactly one of config (a training run), policy (a saved policy) "
                "and reuse_policy (another recipe)"
            )
        if self.plan_switch_margin is not None and self.reuse_policy is None:
            raise ValueError("plan_switch_margin needs reuse_policy, the recipe to evaluate")
        if self.made_by is not None and self.policy is None:
            raise ValueError("made_by needs policy, the saved policy that the other study trains")


@dataclass(frozen=True)
class StudyConfig:
    """A study: policies that are evaluated on the same episodes and the same questions."""

    # Recipes by name, in table order; a recipe comes after the recipes that it uses.
    recipes: dict[str, Recipe]
    out: str  # folder of summaries, tables and figures
    runs: str  # folder of training runs, per-episode rows and logs
    # Benchmark that lists the tasks; rollouts use the one that a policy was trained for.
    benchmark: dict[str, Any]
    # Task ids or group names; empty: the benchmark's default tasks.
    tasks: list[str] = field(default_factory=list)
    episodes: int = 250  # evaluation episodes of every task, at least 1
    seed: int = SEED  # seed of the first episode of every task; later episodes count up
    vqa: str | None = None  # packed web data with the questions; null: no questions
    questions: int = 2000  # number of questions, at least 1
    # Pairs of recipes that are compared on the same episodes: (first, second).
    pairs: list[tuple[str, str]] = field(default_factory=list)
    robot: str | None = None  # robot of multi-robot policies; null: the only one
    axis: str | None = None  # label of the x axis of the curves; null: no curves
    latency: int = 0  # timed actions of every policy; 0: no timing
    # ``key=value`` changes of every training run.
    change: list[str] = field(default_factory=list)

    def selected_tasks(self) -> list[Task]:
        """The tasks of the study, in the benchmark's order within a group.

        Raises:
            ConfigError: an unknown benchmark, task or group.
        """
        try:
            return open_benchmark(self.benchmark).select(self.tasks)
        except ValueError as error:
            raise ConfigError(f"tasks: {error}") from error


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """The checked configuration of a study; paths of run YAMLs include the study's folder.

    Raises:
        ConfigError: see ``vla.config``; or a recipe or pair names a recipe that is unknown or
            comes later.
    """
    config: StudyConfig = load_config(path, overrides, StudyConfig)
    known: list[str] = []
    for name, recipe in config.recipes.items():
        for key, other in (("init_from", recipe.init_from), ("reuse_policy", recipe.reuse_policy)):
            if other is not None and other not in known:
                raise ConfigError(
                    f"{path}: recipes.{name}.{key}={other!r}: no recipe above it has this name "
                    f"({', '.join(known) or 'none'})"
                )
        known.append(name)
    for pair in config.pairs:
        for name in pair:
            if name not in config.recipes:
                raise ConfigError(
                    f"{path}: pairs: unknown recipe {name!r}; choose from {', '.join(known)}"
                )
    home = Path(path).parent
    return replace(
        config, recipes={n: _located(r, home, config.change) for n, r in config.recipes.items()}
    )


def _located(recipe: Recipe, home: Path, change: list[str]) -> Recipe:
    if recipe.config:
        return replace(recipe, config=str(home / recipe.config), change=[*recipe.change, *change])
    if recipe.made_by:
        return replace(recipe, made_by=str(home / recipe.made_by))
    return recipe


def policy_of(config: StudyConfig, name: str) -> Path:
    """Folder of a recipe's policy, whether or not it exists yet."""
    recipe = config.recipes[name]
    if recipe.reuse_policy:
        return policy_of(config, recipe.reuse_policy)
    return Path(recipe.policy) if recipe.policy else Path(config.runs) / name / "policy"


def label_of(config: StudyConfig, name: str) -> str:
    """Name of a recipe in tables and figures."""
    return config.recipes[name].label or name
