"""PushT: one backbone, five action heads, the same samples and seeds.

Needs `.[data,pusht]` and the packed human demonstrations (see README.md). Every head is trained
with configs/pusht.yaml and evaluated in 100 episodes. Writes results.csv and the README's table.
Finished trainings and evaluations are skipped; stopped ones continue.
Usage: python experiments/pusht/run.py [--heads token flow] [--only train]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from vla.benchmarks.base import SEED
from vla.config import load_config
from vla.evaluation.results import read_results
from vla.evaluation.run import run_eval
from vla.evaluation.statistics import percentages, summary
from vla.policies.checkpoint import load_policy
from vla.training.run import RunConfig, train
from vla.utils.csv_tables import markdown, put, read_table, write_table

HERE = Path(__file__).parent
CONFIG = HERE.parent.parent / "configs" / "pusht.yaml"
HEADS = ["token", "regression", "flow", "mixture", "token_fast"]
RESAMPLES = 10_000  # of the bootstrap interval of a mean score


def trained(head: str) -> Path:
    """The folder of a trained policy."""
    return train(
        load_config(CONFIG, [f"policy.head={head}", f"output_dir=runs/pusht/{head}"], RunConfig)
    )


def evaluated(head: str, policy: Path, episodes: int) -> dict[str, Any]:
    """A line of results.csv; scores in 0 to 1, success in %."""
    out = policy.parent / f"eval_{episodes}"
    if not (out / "results.json").is_file():
        run_eval(policy, {"name": "pusht"}, [], None, episodes, SEED, out, 25, [])
    found = read_results(out / "results.json")
    scores = np.array([r.metrics["score"] for r in found])
    draws = np.random.default_rng(0).choice(scores, (RESAMPLES, len(scores))).mean(1)
    model: Any = load_policy(policy)
    return {
        "head": head,
        "parameters": str(sum(p.numel() for p in model.parameters())),
        "episodes": str(len(found)),
        "score": f"{scores.mean():.3f}",
        "score_low": f"{np.quantile(draws, 0.025):.3f}",
        "score_high": f"{np.quantile(draws, 0.975):.3f}",
        "overlap": f"{np.mean([r.metrics['overlap'] for r in found]):.3f}",
        **percentages(summary(found)["pusht"]),
    }


def main() -> None:
    """Train, evaluate, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", nargs="+", default=HEADS)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--only", choices=["train"])
    options = parser.parse_args()
    folders = {head: trained(head) for head in options.heads}
    if options.only == "train":
        return
    path = HERE / "results.csv"
    rows = {r["head"]: r for r in read_table(path)} if path.is_file() else {}
    for head, folder in folders.items():
        rows[head] = evaluated(head, folder, options.episodes)
        write_table(path, [*rows.values()])
    titles = ["head", "parameters", "mean score", "95 % interval", "success, %", "95 % interval"]
    lines = [
        [
            r["head"],
            r["parameters"],
            r["score"],
            f"{r['score_low']} to {r['score_high']}",
            r["success"],
            f"{r['low']} to {r['high']}",
        ]
        for r in rows.values()
    ]
    put(HERE / "README.md", "table", markdown(titles, lines))


if __name__ == "__main__":
    main()
