"""Train one policy for two robots: the tabletop and a humanoid's 26 joints (Unitree G1).

Writes success.csv (rollouts before and after) and g1.csv (errors on held-out episodes). Complete
parts are skipped. Usage: python experiments/two_robots/run.py [--episodes 100]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from vla.config import load_config
from vla.data.pack import pack_from
from vla.evaluation.offline import offline
from vla.evaluation.rollout import evaluate, open_benchmark
from vla.evaluation.statistics import mcnemar_of_pairs
from vla.experiments.study.measure import replace_rows
from vla.experiments.study.summaries import SUCCESS, read_results, success_rows
from vla.experiments.study.tables import success_table
from vla.policies.checkpoint import load_policy
from vla.training.run import RunConfig, train
from vla.utils.csv_tables import markdown, put, read_table, write_table

HERE = Path(__file__).parent
SUMS = ("successes", "episodes")  # columns of success.csv
G1 = HERE.parents[2] / "shared" / "realdata" / "g1_lerobot21"
MAPPING = (
    "source.mapping.size=64",
    "source.mapping.rate_hz=5",
    "shard_size=1",
    "val_fraction=0.25",
)


def evaluate_tabletop(policy: Any, name: str, episodes: int) -> None:
    """Rollouts on the benchmark's default tasks, with the same seeds for every policy."""
    path = HERE / "success.csv"
    if name not in {r["recipe"] for r in read_table(path, SUCCESS)}:
        benchmark = open_benchmark(policy.spec.benchmark, policy.spec.cameras)
        results, _ = evaluate(policy, benchmark, benchmark.default_tasks(), episodes)
        replace_rows(path, success_rows(name, results), SUCCESS)


def tables() -> dict[str, str]:
    """Tables of the README by marker, from the CSV files."""
    success = read_results(HERE).success
    after, before = (np.concatenate([*success[n].values()]) for n in ("after", "before"))
    test = mcnemar_of_pairs(after.tolist(), before.tolist())
    paired = [str(test[k]) for k in ("n", "only_theirs", "only_ours")] + [f"{test['p']:.2g}"]
    g1 = [[r["prediction"], f"{100 * float(r['error']):.2f}"] for r in read_table(HERE / "g1.csv")]
    rows = read_table(HERE / "success.csv", SUCCESS)
    totals = [
        {"recipe": name, "task": "all"}
        | {c: str(sum(int(r[c]) for r in rows if r["recipe"] == name)) for c in SUMS}
        for name in ("before", "after")
    ]
    return {
        "tabletop": success_table(totals),
        "paired": markdown(["pairs", "only before", "only after", "p"], [paired]),
        "g1": markdown(["prediction", "error, % of range"], g1),
    }


def main() -> None:
    """Evaluate, train on both robots, evaluate again, and measure errors on G1's episodes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=100, help="of every task")
    episodes = parser.parse_args().episodes
    pack_from(G1, Path("data/custom/g1"), list(MAPPING), skip_missing=True)
    config = load_config(HERE / "config.yaml", (), RunConfig)
    evaluate_tabletop(load_policy(config.init_from).robot(), "before", episodes)
    policy: Any = load_policy(train(config))
    evaluate_tabletop(policy.robot("robot"), "after", episodes)
    result = offline(policy.robot("g1"), "data/custom/g1")
    rows = [
        {"prediction": name, "error": f"{(e / result.range).mean():.6f}"}
        for name, e in result.errors.items()
    ]
    write_table(HERE / "g1.csv", rows)
    for name, text in tables().items():
        put(HERE / "README.md", name, text)


if __name__ == "__main__":
    main()
