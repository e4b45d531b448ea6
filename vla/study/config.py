"""What a study is: recipes, cells, pairs; where its policies are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vla.config import ConfigError, load_config
from vla.evaluate import SEED
from vla.provenance import COLUMNS

EPISODES = ("recipe", "cell", "seed", "success", "steps", "failed")
ANSWERS = ("recipe", "test", "key", "question", "right")
TIMES = ("recipe", "at", "ms")
PROVENANCE = ("recipe", *COLUMNS)


@dataclass(frozen=True)
class Recipe:
    """config: YAML of a run, relative to the study's file; change: ``key=value`` changes; after: the recipe whose policy it starts from; policy: a saved policy,
    which is tested as it is instead; of: the recipe whose policy is driven, otherwise; acts: whether it is driven (a web stage is only asked); answers: whether it is asked questions (RT-1 has no words);
    keep: copy its policy into the study's folder, so that a fresh clone need not train it for what starts from it; shown: how tables call it (its name if
    not given); hold_plan: its head's ``hold_plan`` while it is driven; drawn: whether it has bars in the figure; at: where it stands on the study's axis."""

    config: str | None = None
    change: list[str] = field(default_factory=list)
    after: str | None = None
    policy: str | None = None
    of: str | None = None
    acts: bool = True
    answers: bool = True
    keep: bool = False
    shown: str | None = None
    drawn: bool = True
    hold_plan: float | None = None
    at: float | None = None

    def __post_init__(self) -> None:
        if sum(source is not None for source in (self.config, self.policy, self.of)) != 1:
            raise ValueError("a recipe has either config (a run), policy (a saved policy) or of (another recipe)")
        if self.hold_plan is not None and self.of is None:
            raise ValueError("hold_plan is how the policy of another recipe is driven: give of")


@dataclass(frozen=True)
class StudyConfig:
    """recipes: by name, in the order of tables, what is started from before what starts from it; cells: of ``vla.sim.suites`` or suites' names; episodes: of
    each cell, seed: of the first one of every cell; vqa: packed web data to be asked about, questions: how many; pairs: recipes compared with each other (first, second); out: tables and
    figures; runs: folder of the runs; axis: what the recipes' ``at`` means, if curves are to be drawn; latency: so many actions of each are timed;
    change: ``key=value`` changes of every run."""

    recipes: dict[str, Recipe]
    out: str
    runs: str
    cells: list[str] = field(default_factory=lambda: ["all"])
    episodes: int = 250
    seed: int = SEED
    vqa: str | None = None
    questions: int = 2000
    pairs: list[tuple[str, str]] = field(default_factory=list)
    robot: str | None = None
    axis: str | None = None
    latency: int = 0
    change: list[str] = field(default_factory=list)

    def cell_names(self) -> list[str]:
        """Suites spelled out; other names are cells or skills."""
        from vla.sim.suites import SUITES

        return [name for cell in self.cells for name in SUITES.get(cell, [cell])]


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """Read and check a study.

    Raises:
        ConfigError: see ``vla.config``; or a recipe or pair names an unknown recipe, or one that comes later.
    """
    config: StudyConfig = load_config(path, overrides, StudyConfig)
    before: list[str] = []
    for name, recipe in config.recipes.items():
        for key, other in (("after", recipe.after), ("of", recipe.of)):
            if other is not None and other not in before:
                raise ConfigError(
                    f"{path}: recipes.{name}.{key}={other!r}: no recipe above it has this name ({', '.join(before) or 'none'})"
                )
        before.append(name)
    for pair in config.pairs:
        for name in pair:
            if name not in config.recipes:
                raise ConfigError(f"{path}: pairs: unknown recipe {name!r}; choose from {', '.join(config.recipes)}")
    home = Path(path).parent
    recipes = {
        n: replace(r, config=str(home / r.config), change=[*r.change, *config.change]) if r.config else r
        for n, r in config.recipes.items()
    }
    return replace(config, recipes=recipes)


def policy_of(config: StudyConfig, name: str) -> Path:
    """Where a recipe's policy is, or will be."""
    recipe = config.recipes[name]
    made, kept = Path(config.runs) / name / "policy", Path(config.out) / name
    if recipe.of:
        return policy_of(config, recipe.of)
    if recipe.policy:
        return Path(recipe.policy)
    return kept if recipe.keep and kept.is_dir() and not made.is_dir() else made
