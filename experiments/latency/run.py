"""Success of one chunked flow policy when predictions take time, by mode of execution.

Trains the policy of config.yaml, writes results.csv (a row per latency and mode), pairs.csv (exact
McNemar tests) and the tables of the README. Complete cells are skipped.
Usage: python experiments/latency/run.py [--episodes 100]
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from vla.config import load_config
from vla.evaluation.results import read_results
from vla.evaluation.rollout import evaluate, open_benchmark
from vla.evaluation.statistics import mcnemar, wilson
from vla.inference.realtime import Latency
from vla.policies.checkpoint import load_policy
from vla.policies.execution import Execution
from vla.training.run import RunConfig, train
from vla.utils.csv_tables import markdown, put, read_table, write_table

HERE = Path(__file__).parent
MS = (0, 100, 200, 400, 800)
COLUMNS = {"0 ms": 0, "100, 200 ms": 200, "400 ms": 400, "800 ms": 800}  # 5 Hz: 200 ms a step
EXECUTED = 4  # steps of each chunk of 8
MODES = {
    "synchronous": Execution(EXECUTED),
    "naive asynchronous": Execution(EXECUTED, mode="asynchronous"),
    "delay-aware, not conditioned": Execution(EXECUTED, mode="delay_aware", condition=False),
    "delay-aware": Execution(EXECUTED, mode="delay_aware"),
}
PAIRS = (("delay-aware", "synchronous"), ("delay-aware", "naive asynchronous"))
PAIRS += (("delay-aware", "delay-aware, not conditioned"),)


def cell(policy: Any, runs: Path, mode: str, ms: int, episodes: int) -> Path:
    """Results of one cell. Latencies of as many control steps have the same ones.

    Without latency the modes do not differ.
    """
    steps = Latency(ms).steps(policy.spec.action_space.rate_hz)
    mode = mode if steps else next(iter(MODES))
    path = runs / f"{mode.replace(', ', '_').replace(' ', '_')}_{steps}_{episodes}.json"
    if not path.is_file():
        benchmark = open_benchmark(policy.spec.benchmark, policy.spec.cameras)
        latency = Latency(1000 * steps / policy.spec.action_space.rate_hz)
        tasks, how = benchmark.select(["pick"]), MODES[mode]
        evaluate(policy, benchmark, tasks, episodes, path, execution=how, latency=latency)
    return path


def row(mode: str, ms: int, steps: int, path: Path) -> dict[str, Any]:
    """One line of results.csv."""
    results = read_results(path)
    won = [r for r in results if r.success]
    low, high = wilson(len(won), len(results))
    mean = f"{np.mean([r.steps for r in won]):.1f}" if won else ""
    shares = {"percent": len(won) / len(results), "low": low, "high": high}
    percent = {name: f"{100 * value:.1f}" for name, value in shares.items()}
    start = {"mode": mode, "latency_ms": ms, "delay_steps": steps, "n": len(results)}
    return start | percent | {"mean_steps_of_successes": mean}


def tables() -> dict[str, str]:
    """Tables of the README by marker, from the CSV files."""
    found = {(r["mode"], int(r["latency_ms"])): r for r in read_table(HERE / "results.csv")}
    lines = [
        [mode, *("{percent} [{low}-{high}]".format(**found[mode, ms]) for ms in COLUMNS.values())]
        for mode in MODES
    ]
    return {"success": markdown(["mode", *COLUMNS], lines)}


def main() -> None:
    """Train, evaluate every cell, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=100, help="of every cell")
    episodes = parser.parse_args().episodes
    config = load_config(HERE / "config.yaml", (), RunConfig)
    policy: Any = load_policy(train(config)).robot()
    runs, rate = Path(config.output_dir) / "cells", policy.spec.action_space.rate_hz
    runs.mkdir(exist_ok=True)
    for name in ("provenance.csv", "curves.csv"):
        shutil.copy(Path(config.output_dir) / name, HERE / name)
    paths = {(m, ms): cell(policy, runs, m, ms, episodes) for ms in MS for m in MODES}
    rows = [row(m, ms, Latency(ms).steps(rate), path) for (m, ms), path in paths.items()]
    write_table(HERE / "results.csv", rows)
    tests = []
    for ms in MS[2:]:
        for ours, theirs in PAIRS:
            test = mcnemar(read_results(paths[ours, ms]), read_results(paths[theirs, ms]))
            only = {"only first": test["only_ours"], "only second": test["only_theirs"]}
            names = {"ms": ms, "first": ours, "second": theirs}
            tests.append(names | only | {"p": f"{test['p']:.2g}"})
    write_table(HERE / "pairs.csv", tests)
    for name, text in tables().items():
        put(HERE / "README.md", name, text)


if __name__ == "__main__":
    main()
