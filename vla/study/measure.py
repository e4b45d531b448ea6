"""Driving a study's policies, asking and timing them; every row goes into a file as soon as it is whole."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from vla.evaluate import Result, evaluate
from vla.study.config import ANSWERS, EPISODES, TIMES, StudyConfig, policy_of
from vla.tables import add_rows, read_table, write_table


def lock_of(config: StudyConfig) -> Path:
    """Held by who changes the study's CSV files or report."""
    return Path(config.runs) / ".results.lock"  # no recipe is called so


def results_alone(config: StudyConfig) -> FileLock:
    """A study's CSV files and report for this process alone: others may share its recipes."""
    Path(config.runs).mkdir(parents=True, exist_ok=True)
    return FileLock(lock_of(config))


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


def _loaded(config: StudyConfig, name: str, saved: Path) -> Any:
    """A recipe's policy, bound to the study's robot, as it is to be driven."""
    from vla.module import PolicyModule

    module: Any = PolicyModule.load(saved)
    if config.recipes[name].hold_plan is not None:
        module.head(config.robot).hold_plan = config.recipes[name].hold_plan
    return module.robot(config.robot)


def drive(config: StudyConfig, name: str, saved: Path) -> bool:
    """The cells that have no episodes yet, each written when it is whole; whether there were any."""
    from vla.report import default_environment

    path = Path(config.out) / "episodes.csv"
    missing = [c for c in config.cell_names() if c not in {r["cell"] for r in read_table(path, EPISODES) if r["recipe"] == name}]
    if not missing:
        return False
    known = _driven_elsewhere(config, name, missing)
    if known:
        add_rows(path, known, lock_of(config), EPISODES)
        print(f"{name}: {len(known)} episodes are in {Path(str(config.recipes[name].policy)).parent} already", flush=True)
    todo = [c for c in missing if c not in {r["cell"] for r in known}]
    if not todo:
        return True
    policy = _loaded(config, name, saved)
    env, _ = default_environment(policy.contract)
    for cell in todo:
        results, _ = evaluate(policy, "vla/Tabletop-v0", env, config.episodes, [cell], seed=config.seed)
        add_rows(path, [_row(name, cell, r) for r in results], lock_of(config), EPISODES)
        print(f"{name}, {cell}: {sum(r.success for r in results)} of {len(results)}", flush=True)
    return True


def _row(name: str, cell: str, r: Result) -> dict[str, Any]:
    return {"recipe": name, "cell": cell, "seed": r.seed, "success": int(r.success), "steps": r.steps, "failed": int(r.failed)}


def ask_all(config: StudyConfig, name: str, saved: Path) -> bool:
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
    add_rows(path, new, lock_of(config), ANSWERS)
    return True


def time_actions(config: StudyConfig) -> bool:
    """One picture at a time through every policy that acts, in turns so that a busy machine slows all alike; the pictures are those of episodes that the last one drives, so
    that plans which are held have a step before. Whether there was anything to time."""
    from vla.evaluate import PolicyActor
    from vla.report import default_environment
    from vla.sim.tabletop import Tabletop

    path = Path(config.out) / "latency.csv"
    names = [n for n, r in config.recipes.items() if r.acts and policy_of(config, n).is_dir()]
    timed = {r["recipe"] for r in read_table(path, TIMES)}
    if not config.latency or timed.issuperset(names):
        return False
    if gone := sorted(timed - set(names)):  # times of one run are compared, so a part cannot be added
        print(
            f"{path}: left as it is, without {', '.join(n for n in names if n not in timed)}: {', '.join(gone)} would be timed again, but their policies are not here",
            flush=True,
        )
        return False
    actors = {n: PolicyActor(_loaded(config, n, policy_of(config, n)), execute=1) for n in names}
    env = Tabletop(**default_environment(next(iter(actors.values())).contract)[0])
    rows: list[dict[str, Any]] = []
    over, seen = True, {}
    for k in range(config.latency + 1):
        if over:
            seen = env.reset(seed=config.seed + k)[0]
            for actor in actors.values():
                actor.reset(0)
        action: Any = None
        for name, actor in actors.items():
            start = time.perf_counter()
            action = actor([0], [seen])[0]
            if k:  # the first is not counted
                rows.append({"recipe": name, "at": k - 1, "ms": f"{1000 * (time.perf_counter() - start):.3f}"})
        seen, _, terminated, truncated, _ = env.step(action)
        over = terminated or truncated
    with results_alone(config):
        write_table(path, rows, TIMES)
    return True
