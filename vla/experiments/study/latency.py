"""Time to one action of every policy of a study."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from vla.evaluation.rollout import open_benchmark
from vla.experiments.study.config import StudyConfig, policy_of
from vla.experiments.study.measure import load_recipe_policy, results_lock
from vla.experiments.study.summaries import LATENCY, TIMES, latency_rows
from vla.inference.runner import PolicyRunner
from vla.policies.execution import Execution
from vla.utils.csv_tables import read_table, write_table


def time_actions(config: StudyConfig) -> bool:
    """Time every policy on single observations and write ``latency.csv``; True if it was written.

    The policies take turns, so that other load on the machine slows all of them alike. The
    observations are those of episodes of the last policy, so that previous plans exist. Times of
    one run are compared, so the table is kept if a policy in it is no longer available.
    """
    path = Path(config.out) / "latency.csv"
    names = [n for n, r in config.recipes.items() if r.rollouts and policy_of(config, n).is_dir()]
    timed = {r["recipe"] for r in read_table(path, LATENCY)}
    if not config.latency or timed.issuperset(names):
        return False
    if absent := sorted(timed - set(names)):
        new = ", ".join(n for n in names if n not in timed)
        print(
            f"{path}: unchanged, without {new}: the policies of {', '.join(absent)} are not here "
            "to be timed in the same run",
            flush=True,
        )
        return False
    rows = _timed_rows(config, names)
    with results_lock(config):
        write_table(Path(config.runs) / "latency.csv", rows, TIMES)
        write_table(path, latency_rows(list(config.recipes), rows), LATENCY)
    return True


def _timed_rows(config: StudyConfig, names: list[str]) -> list[dict[str, Any]]:
    runners = {
        n: PolicyRunner(load_recipe_policy(config, n, policy_of(config, n)), Execution(horizon=1))
        for n in names
    }
    spec = next(iter(runners.values())).spec
    benchmark = open_benchmark(spec.benchmark, spec.cameras)
    env = benchmark.make_env(benchmark.default_tasks()[0])
    rows: list[dict[str, Any]] = []
    over, observation = True, {}
    for k in range(config.latency + 1):
        if over:
            observation = env.reset(seed=config.seed + k)[0]
            for runner in runners.values():
                runner.reset(0)
        action: Any = None
        for name, runner in runners.items():
            start = time.perf_counter()
            action = runner.act([0], [observation])[0]
            spent = 1000 * (time.perf_counter() - start)
            if k:  # the first call includes one-time costs
                rows.append({"recipe": name, "action": k - 1, "ms": f"{spent:.3f}"})
        observation, _, terminated, truncated, _ = env.step(action)
        over = terminated or truncated
    return rows
