"""MT50: policies for all 50 tasks, the choice between them, evaluation, and a control.

Needs `.[metaworld]` and the recording: vla record metaworld/mt50 data/mt50 --episodes 50
The policy with the smallest error on held-out demonstrations is evaluated, also with the
instructions of other tasks. Writes heldout.csv, results.csv, tasks.csv and the README's tables.
Finished runs and evaluations are skipped.
Usage: python experiments/metaworld/run.py [--heads regression token_extra] [--episodes 20]
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from vla.benchmarks.base import SEED
from vla.config import load_config
from vla.evaluation.groups import comparison_rows, group_summary
from vla.evaluation.offline import offline
from vla.evaluation.results import read_results
from vla.evaluation.rollout import open_benchmark
from vla.evaluation.run import run_eval
from vla.evaluation.statistics import percentages
from vla.policies.checkpoint import load_policy
from vla.training.run import RunConfig, train
from vla.utils.csv_tables import markdown, put, read_table, write_table

HERE = Path(__file__).parent
CONFIG = HERE.parent.parent / "configs" / "metaworld_mt50.yaml"
CONTROL = "instructions of other tasks"


def trained(head: str) -> tuple[Path, dict[str, Any]]:
    """The folder of a policy, and its line of heldout.csv; errors in % of the bounds."""
    changes = [f"policy.head={head}", f"output_dir=runs/mt50/{head}"]
    config = load_config(CONFIG, changes, RunConfig)
    folder = train(config)
    policy: Any = load_policy(folder)
    found = offline(policy.robot(), config.data.datasets["robot"], "val")
    errors = {name: 100 * float(np.mean(v / found.range)) for name, v in found.errors.items()}
    numbers = {"error": errors["policy"], "error_chunk": errors["policy, chunk"]}
    parameters = sum(p.numel() for p in policy.parameters())
    start = {"head": head, "parameters": parameters, "frames": found.frames}
    return folder, start | {name: f"{value:.2f}" for name, value in numbers.items()}


def evaluated(label: str, policy: Path, episodes: int, shuffle: bool) -> list[dict[str, Any]]:
    """Lines of results.csv: groups and averages, in %."""
    out = policy.parent / f"eval_{episodes}{'_shuffled' if shuffle else ''}"
    if not (out / "results.json").is_file():
        run_eval(policy, {}, [], None, episodes, SEED, out, 50, [], shuffle_instructions=shuffle)
    benchmark = open_benchmark({"name": "metaworld/mt50"})
    found = group_summary(benchmark, read_results(out / "results.json"))
    if not shuffle:
        shutil.copy(out / "tasks.csv", HERE / "tasks.csv")
        lines = [
            [value for name, value in row.items() if name != "source"]
            for row in comparison_rows(benchmark, found, label)
        ]
        header = [n for n in comparison_rows(benchmark, found, label)[0] if n != "source"]
        put(HERE / "README.md", "table", markdown(header, lines))
    return [
        {
            "policy": label,
            "control": "yes" if shuffle else "no",
            "group": name,
            "tasks": int(s["tasks"]),
            "episodes": int(s["n"]),
        }
        | percentages(s)
        for name, s in found.items()
    ]


def tables() -> dict[str, str]:
    """The README's tables of our own numbers, from the CSV files."""
    heldout = [list(r.values()) for r in read_table(HERE / "heldout.csv")]
    titles = ["head", "parameters", "frames", "error of the next action", "of the whole chunk"]
    rows = read_table(HERE / "results.csv")
    columns = [*dict.fromkeys(r["policy"] for r in rows)]
    cells = {(r["policy"], r["group"]): "{success} ({low} to {high})".format(**r) for r in rows}
    ours = [
        [group.replace("_", " "), *(cells.get((policy, group), "") for policy in columns)]
        for group in dict.fromkeys(r["group"] for r in rows)
    ]
    return {
        "heldout": markdown(titles, heldout),
        "groups": markdown(["success, %", *columns], ours),
    }


def main() -> None:
    """Train, choose, evaluate, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", nargs="+", default=["regression"])
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--control-episodes", type=int, default=2)
    options = parser.parse_args()
    found = [trained(head) for head in options.heads]
    write_table(HERE / "heldout.csv", [line for _, line in found])
    policy, line = min(found, key=lambda f: float(f[1]["error_chunk"]))
    rows = evaluated(line["head"], policy, options.episodes, False)
    rows += evaluated(CONTROL, policy, options.control_episodes, True)
    write_table(HERE / "results.csv", rows)
    for name, text in tables().items():
        put(HERE / "README.md", name, text)


if __name__ == "__main__":
    main()
