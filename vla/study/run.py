"""``vla study``: every recipe trained, then driven through the same episodes and asked the same questions; what is done is skipped."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vla.config import ConfigError, load_config
from vla.evaluate import SEED, Result, evaluate

EPISODES = ("recipe", "cell", "seed", "success", "steps", "failed")
ANSWERS = ("recipe", "test", "key", "question", "right")


@dataclass(frozen=True)
class Recipe:
    """config: YAML of a run, relative to the study; change: ``key=value`` changes; after: the recipe whose policy it starts from; policy: a saved policy,
    which is tested as it is instead; acts: whether it is driven (a web stage is only asked); shown: how tables call it (its name if not given)."""

    config: str | None = None
    change: list[str] = field(default_factory=list)
    after: str | None = None
    policy: str | None = None
    acts: bool = True
    shown: str | None = None

    def __post_init__(self) -> None:
        if (self.config is None) == (self.policy is None):
            raise ValueError("a recipe has either config (a run) or policy (a saved policy)")


@dataclass(frozen=True)
class StudyConfig:
    """recipes: by name, in the order of tables, what is started from before what starts from it; cells: of ``vla.sim.suites`` or suites' names; episodes: of
    each cell; vqa: packed web data to be asked about, questions: how many; pairs: recipes compared with each other (first, second); out: tables and
    figures; runs: folder of the runs."""

    recipes: dict[str, Recipe]
    out: str
    runs: str
    cells: list[str] = field(default_factory=lambda: ["all"])
    episodes: int = 250
    vqa: str | None = None
    questions: int = 2000
    pairs: list[tuple[str, str]] = field(default_factory=list)
    robot: str | None = None

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
        if recipe.after is not None and recipe.after not in before:
            raise ConfigError(
                f"{path}: recipes.{name}.after={recipe.after!r}: no recipe above it has this name ({', '.join(before) or 'none'})"
            )
        before.append(name)
    for pair in config.pairs:
        for name in pair:
            if name not in config.recipes:
                raise ConfigError(f"{path}: pairs: unknown recipe {name!r}; choose from {', '.join(config.recipes)}")
    return config


def policy_of(config: StudyConfig, name: str) -> Path:
    """Where a recipe's policy is, or will be."""
    given = config.recipes[name].policy
    return Path(given) if given else Path(config.runs) / name / "policy"


def train_recipe(config: StudyConfig, name: str, folder: Path) -> Path:
    """Train it, or continue, or nothing if it is done."""
    from vla.train import train_from_file

    recipe = config.recipes[name]
    if recipe.config is None:
        return policy_of(config, name)
    start = [f"init={policy_of(config, recipe.after)}"] if recipe.after else []
    return train_from_file(str(folder / recipe.config), [*recipe.change, *start, f"run={Path(config.runs) / name}"])


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a study's CSV; none if there is no file.

    Raises:
        ConfigError: other columns.
    """
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != tuple(columns):
            raise ConfigError(f"{path}: its columns are not {', '.join(columns)}; move it away")
        return list(reader)


def write_table(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)


def _drive(config: StudyConfig, name: str, saved: Path) -> bool:
    """The cells that have no episodes yet, each written when it is whole; whether there were any."""
    from vla.module import PolicyModule
    from vla.report import default_environment

    path = Path(config.out) / "episodes.csv"
    rows: list[dict[str, Any]] = list(read_table(path, EPISODES))
    done = {r["cell"] for r in rows if r["recipe"] == name}
    todo = [c for c in config.cell_names() if c not in done]
    if not todo:
        return False
    policy = PolicyModule.load(saved).robot(config.robot)
    env, _ = default_environment(policy.contract)
    for cell in todo:
        results, _ = evaluate(policy, "vla/Tabletop-v0", env, config.episodes, [cell], seed=SEED)
        rows += [_row(name, cell, r) for r in results]
        write_table(path, EPISODES, rows)
        print(f"{name}, {cell}: {sum(r.success for r in results)} of {len(results)}", flush=True)
    return True


def _row(name: str, cell: str, r: Result) -> dict[str, Any]:
    return {"recipe": name, "cell": cell, "seed": r.seed, "success": int(r.success), "steps": r.steps, "failed": int(r.failed)}


def _ask(config: StudyConfig, name: str, saved: Path) -> bool:
    """The questions, unless they were asked; whether they were now."""
    from vla.module import PolicyModule
    from vla.vqa import ask

    assert config.vqa is not None
    path = Path(config.out) / "answers.csv"
    rows: list[dict[str, Any]] = list(read_table(path, ANSWERS))
    policy: Any = PolicyModule.load(saved)
    if any(r["recipe"] == name for r in rows) or not hasattr(policy, "answer"):
        return False
    for a in ask(policy, config.vqa, config.questions):
        rows.append({"recipe": name, "test": a.test, "key": a.key, "question": a.question, "right": int(a.right)})
    write_table(path, ANSWERS, rows)
    return True


def run_study(path: str, overrides: list[str], only: list[str], report_only: bool) -> None:
    """``vla study``."""
    from vla.study.report import write_report

    config = load_study(path, overrides)
    unknown = [n for n in only if n not in config.recipes]
    if unknown:
        raise ConfigError(f"--only {unknown[0]}: no such recipe; choose from {', '.join(config.recipes)}")
    for name in () if report_only else only or config.recipes:
        saved = train_recipe(config, name, Path(path).parent)
        driven = config.recipes[name].acts and _drive(config, name, saved)
        asked = config.vqa is not None and _ask(config, name, saved)
        if driven or asked:
            write_report(config)
    if report_only:
        write_report(config)
