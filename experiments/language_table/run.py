"""Language-Table: RT-2's token head without and with two kinds of web data, and RT-1.

Needs `.[language-table,pretrained]`, the wheel of RT-1's sentence encoder (configs/README.md) and a
checkout (vla/benchmarks/README.md). Records, trains and evaluates; writes results.csv and the
README's table. Finished steps are skipped, stopped ones continue.
Usage: python experiments/language_table/run.py [--only token rt1] [--until train]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from vla.benchmarks.base import SEED
from vla.config import load_config
from vla.evaluation.results import read_results
from vla.evaluation.run import run_eval
from vla.evaluation.statistics import percentages, summary
from vla.training.run import RunConfig, train
from vla.utils.csv_tables import markdown, put, read_table, write_table

HERE = Path(__file__).parent
CONFIGS = HERE.parent.parent / "configs"
RUNS = Path("runs/language_table")
DATA = RUNS / "data"
RECORDED = 160  # episodes of a family
EPISODES = 10  # of a family, in the evaluation


class Policy(NamedTuple):
    """One line of the comparison."""

    config: str  # file in configs
    label: str
    changes: list[str]  # of the configuration
    web: str = ""  # file in configs/pack of the web data
    samples: int = 0  # of the web data
    weight: float = 0.0  # share of web samples in the batches


# Every policy has 8,000 steps of 32 samples.
COMMON = [
    f"data.datasets.robot={DATA}",
    "train.steps=8000",
    "train.batch_size=32",
    "train.threads=1",
]
RT1 = [
    "policy.image_size=128",
    "policy.normalise=quantiles",
    "data.window.cameras=[]",
    "data.window.history=1",
    "train.eval.episodes=0",
]
POLICIES = {
    "token": Policy("language_table", "token head", []),
    "token_web": Policy(
        "language_table", "token head, tabletop web data", [], "seen_web", 20000, 0.3
    ),
    "token_questions": Policy(
        "language_table",
        "token head, questions about the blocks",
        ["policy.head.eos_ends_plan=true"],
        "language_table_questions",
        6000,
        0.5,
    ),
    "rt1": Policy("rt1_small", "RT-1, one image", RT1),
}


def vla(*command: str) -> None:
    """Run a command of vla."""
    done = subprocess.run([sys.executable, "-m", "vla", *command], check=False)
    if done.returncode:
        sys.exit(done.returncode)  # the command has printed why


def record(policies: list[Policy]) -> None:
    """The oracle's episodes and the web samples; finished data sets are skipped."""
    vla("record", "language_table", str(DATA), "--episodes", str(RECORDED), "--workers", "2")
    for policy in policies:
        if policy.web:
            pack = CONFIGS / "pack" / f"{policy.web}.yaml"
            vla("pack", str(pack), str(RUNS / policy.web), f"source.samples={policy.samples}")


def trained(name: str) -> Path:
    """The folder of a trained policy."""
    policy = POLICIES[name]
    options = [*COMMON, *policy.changes, f"output_dir={RUNS / name}"]
    if policy.web:
        weights = f"{{robot: {1 - policy.weight}, web: {policy.weight}}}"
        options += [f"data.datasets.web={RUNS / policy.web}", f"data.sampling_weights={weights}"]
    return train(load_config(CONFIGS / f"{policy.config}.yaml", options, RunConfig))


def evaluated(label: str, policy: Path, out: Path) -> list[dict[str, Any]]:
    """Lines of results.csv: one per family and one for all; in %."""
    if not (out / "results.json").is_file():
        run_eval(policy, {"name": "language_table"}, [], None, EPISODES, SEED, out, 10, [])
    return [
        {
            "policy": label,
            "family": family,
            "episodes": f"{found['n']:.0f}",
            **percentages(found),
            "steps": f"{found['steps']:.0f}",
        }
        for family, found in summary(read_results(out / "results.json")).items()
    ]


def tables() -> dict[str, str]:
    """The README's table, from results.csv: all families, and the one with most successes."""
    rows = read_table(HERE / "results.csv")
    away = {r["policy"]: r["success"] for r in rows if r["family"] == "separate"}
    titles = ["policy", "episodes", "success, %", "95 % interval", "separate, %"]
    lines = [
        [r["policy"], r["episodes"], r["success"], f"{r['low']} to {r['high']}", away[r["policy"]]]
        for r in rows
        if r["family"] == "all"
    ]
    return {"table": markdown(titles, lines)}


def main() -> None:
    """Record, train, evaluate; write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(POLICIES), default=list(POLICIES))
    parser.add_argument("--until", choices=["train"])
    options = parser.parse_args()
    record([POLICIES[name] for name in options.only])
    folders = {name: trained(name) for name in options.only}
    if options.until == "train":
        return
    path = HERE / "results.csv"
    for name, folder in folders.items():
        label = POLICIES[name].label
        new = evaluated(label, folder, RUNS / name / "eval")
        rows = read_table(path) if path.is_file() else []
        write_table(path, [*(r for r in rows if r["policy"] != label), *new])
    put(HERE / "README.md", "table", tables()["table"])


if __name__ == "__main__":
    main()
