"""``vla study``: every recipe trained, then driven through the same episodes and asked the same questions; what is done is skipped."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vla.config import ConfigError, load_config
from vla.evaluate import SEED, Result, evaluate
from vla.tables import read_table, write_table

EPISODES = ("recipe", "cell", "seed", "success", "steps", "failed")
ANSWERS = ("recipe", "test", "key", "question", "right")
TIMES = ("recipe", "at", "ms")


@dataclass(frozen=True)
class Recipe:
    """config: YAML of a run, relative to the study's file; change: ``key=value`` changes; after: the recipe whose policy it starts from; policy: a saved policy,
    which is tested as it is instead; acts: whether it is driven (a web stage is only asked); answers: whether it is asked questions (RT-1 has no words);
    keep: copy its policy into the study's folder, so that a fresh clone need not train it for what starts from it; shown: how tables call it (its name if
    not given); drawn: whether it has bars in the figure; at: where it stands on the study's axis."""

    config: str | None = None
    change: list[str] = field(default_factory=list)
    after: str | None = None
    policy: str | None = None
    acts: bool = True
    answers: bool = True
    keep: bool = False
    shown: str | None = None
    drawn: bool = True
    at: float | None = None

    def __post_init__(self) -> None:
        if (self.config is None) == (self.policy is None):
            raise ValueError("a recipe has either config (a run) or policy (a saved policy)")


@dataclass(frozen=True)
class StudyConfig:
    """recipes: by name, in the order of tables, what is started from before what starts from it; cells: of ``vla.sim.suites`` or suites' names; episodes: of
    each cell, seed: of the first one of every cell; vqa: packed web data to be asked about, questions: how many; pairs: recipes compared with each other (first, second); out: tables and
    figures; runs: folder of the runs; axis: what the recipes' ``at`` means, if curves are to be drawn; latency: so many actions of each are timed."""

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
    home = Path(path).parent
    recipes = {n: replace(r, config=r.config and str(home / r.config)) for n, r in config.recipes.items()}
    return replace(config, recipes=recipes)


def policy_of(config: StudyConfig, name: str) -> Path:
    """Where a recipe's policy is, or will be."""
    recipe = config.recipes[name]
    made, kept = Path(config.runs) / name / "policy", Path(config.out) / name
    if recipe.policy:
        return Path(recipe.policy)
    return kept if recipe.keep and kept.is_dir() and not made.is_dir() else made


def train_recipe(config: StudyConfig, name: str) -> Path:
    """Train it, or continue, or nothing if its policy is there; its curves go to ``metrics_<recipe>.csv``."""
    from vla.report import curves_table
    from vla.train import train_from_file

    recipe, saved = config.recipes[name], policy_of(config, name)
    if recipe.config is not None and not saved.is_dir():
        start = [f"init={policy_of(config, recipe.after)}"] if recipe.after else []
        saved = train_from_file(recipe.config, [*recipe.change, *start, f"run={Path(config.runs) / name}"])
    kept, run = Path(config.out) / name, Path(config.runs) / name
    if recipe.config is not None and run.is_dir():
        write_table(Path(config.out) / f"metrics_{name}.csv", curves_table(run))
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
        before = config.recipes[name].after
        if name in found and before and not policy_of(config, name).is_dir() and not policy_of(config, before).is_dir():
            found.add(before)
    return [n for n in config.recipes if n in found]


def _driven_elsewhere(config: StudyConfig, name: str, cells: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a policy that another study kept: the cells that it drove there through the very episodes wanted here."""
    kept = config.recipes[name].policy
    if kept is None:
        return []
    wanted = {str(config.seed + k) for k in range(config.episodes)}
    its = [r for r in read_table(Path(kept).parent / "episodes.csv", EPISODES) if r["recipe"] == Path(kept).name]
    found: list[dict[str, Any]] = []
    for cell in cells:
        rows = [r for r in its if r["cell"] == cell]
        if len(rows) == len(wanted) and {r["seed"] for r in rows} == wanted:
            found += [r | {"recipe": name} for r in rows]
    return found


def _drive(config: StudyConfig, name: str, saved: Path) -> bool:
    """The cells that have no episodes yet, each written when it is whole; whether there were any."""
    from vla.module import PolicyModule
    from vla.report import default_environment

    path = Path(config.out) / "episodes.csv"
    missing = [c for c in config.cell_names() if c not in {r["cell"] for r in read_table(path, EPISODES) if r["recipe"] == name}]
    if not missing:
        return False
    known = _driven_elsewhere(config, name, missing)
    if known:
        write_table(path, [*read_table(path, EPISODES), *known], EPISODES)
        print(f"{name}: {len(known)} episodes are in {Path(str(config.recipes[name].policy)).parent} already", flush=True)
    todo = [c for c in missing if c not in {r["cell"] for r in known}]
    if not todo:
        return True
    policy = PolicyModule.load(saved).robot(config.robot)
    env, _ = default_environment(policy.contract)
    for cell in todo:
        results, _ = evaluate(policy, "vla/Tabletop-v0", env, config.episodes, [cell], seed=config.seed)
        # read again: another recipe may have been driven beside
        write_table(path, [*read_table(path, EPISODES), *(_row(name, cell, r) for r in results)], EPISODES)
        print(f"{name}, {cell}: {sum(r.success for r in results)} of {len(results)}", flush=True)
    return True


def _row(name: str, cell: str, r: Result) -> dict[str, Any]:
    return {"recipe": name, "cell": cell, "seed": r.seed, "success": int(r.success), "steps": r.steps, "failed": int(r.failed)}


def _ask(config: StudyConfig, name: str, saved: Path) -> bool:
    """The questions, unless they were asked; whether they were now."""
    from vla.module import PolicyModule
    from vla.vqa import ask

    path = Path(config.out) / "answers.csv"
    asked = any(r["recipe"] == name for r in read_table(path, ANSWERS))
    if config.vqa is None or not config.recipes[name].answers or asked:
        return False
    policy: Any = PolicyModule.load(saved)
    new = [
        {"recipe": name, "test": a.test, "key": a.key, "question": a.question, "right": int(a.right)}
        for a in ask(policy, config.vqa, config.questions)
    ]
    write_table(path, [*read_table(path, ANSWERS), *new], ANSWERS)
    return True


def _time(config: StudyConfig) -> bool:
    """One picture at a time through every policy that acts, in turns so that a busy machine slows all alike; whether there was anything to time."""
    from vla.evaluate import PolicyActor
    from vla.module import PolicyModule
    from vla.report import default_environment
    from vla.sim.tabletop import Tabletop

    path = Path(config.out) / "latency.csv"
    names = [n for n, r in config.recipes.items() if r.acts and policy_of(config, n).is_dir()]
    if not config.latency or {r["recipe"] for r in read_table(path, TIMES)}.issuperset(names):
        return False
    actors = {n: PolicyActor(PolicyModule.load(policy_of(config, n)).robot(config.robot), execute=1) for n in names}
    env = Tabletop(**default_environment(next(iter(actors.values())).contract)[0])
    rows = []
    for k in range(config.latency + 1):
        seen = env.reset(seed=config.seed + k)[0]
        for name, actor in actors.items():
            actor.reset(0)
            start = time.perf_counter()
            actor([0], [seen])
            if k:  # the first is not counted
                rows.append({"recipe": name, "at": k - 1, "ms": f"{1000 * (time.perf_counter() - start):.3f}"})
    write_table(path, rows, TIMES)
    return True


def run_study(path: str, overrides: list[str], only: list[str], report_only: bool) -> None:
    """``vla study``."""
    from vla.study.report import write_report

    config = load_study(path, overrides)
    unknown = [n for n in only if n not in config.recipes]
    if unknown:
        raise ConfigError(f"--only {unknown[0]}: no such recipe; choose from {', '.join(config.recipes)}")
    for name in () if report_only else needed(config, only or list(config.recipes)):
        saved = train_recipe(config, name)
        driven = config.recipes[name].acts and _drive(config, name, saved)
        asked = _ask(config, name, saved)
        if driven or asked:
            write_report(config)
    if report_only or _time(config):
        write_report(config)
