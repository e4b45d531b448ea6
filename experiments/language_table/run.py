"""Language-Table: RT-2's token head without and with web data, and RT-1.

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
from typing import Any

from vla.benchmarks.base import SEED
from vla.config import load_config
from vla.evaluation.results import read_results
from vla.evaluation.run import run_eval
from vla.evaluation.statistics import summary
from vla.training.run import RunConfig, train
from vla.utils.csv_tables import markdown, put, read_table, write_table

HERE = Path(__file__).parent
CONFIGS = HERE.parent.parent / "configs"
RUNS = Path("runs/language_table")
DATA, WEB = RUNS / "data", RUNS / "web"
RECORDED = 160  # episodes of a family
EPISODES = 50  # of a family
# Every policy has 8,000 steps of 32 samples; 30 % of those with web data are web samples.
COMMON = [
    f"data.datasets.robot={DATA}",
    "train.steps=8000",
    "train.batch_size=32",
    "train.threads=1",
]
POLICIES: dict[str, tuple[str, str, list[str]]] = {
    "token": ("language_table", "token head", []),
    "token_web": (
        "language_table",
        "token head, with web data",
        [
            f"data.datasets.web={WEB}",
            "data.sampling_weights={robot: 0.7, web: 0.3}",
        ],
    ),
    "rt1": (
        "rt1_small",
        "RT-1, one image",
        [
            "policy.image_size=128",
            "policy.normalise=quantiles",
            "data.window.cameras=[]",
            "data.window.history=1",
            "train.eval.episodes=0",
        ],
    ),
}


def vla(*command: str) -> None:
    """Run a command of vla."""
    done = subprocess.run([sys.executable, "-m", "vla", *command], check=False)
    if done.returncode:
        sys.exit(done.returncode)  # the command has printed why


def record(names: list[str]) -> None:
    """The oracle's episodes and the web samples; finished data sets are skipped."""
    vla("record", "language_table", str(DATA), "--episodes", str(RECORDED), "--workers", "2")
    if "token_web" in names:
        vla("pack", str(CONFIGS / "pack" / "seen_web.yaml"), str(WEB), "source.samples=20000")


def trained(name: str) -> Path:
    """The folder of a trained policy."""
    config, _, changes = POLICIES[name]
    options = [*COMMON, *changes, f"output_dir={RUNS / name}"]
    return train(load_config(CONFIGS / f"{config}.yaml", options, RunConfig))


def evaluated(label: str, policy: Path, out: Path) -> list[dict[str, Any]]:
    """Lines of results.csv: one per family and one for all; in %."""
    if not (out / "results.json").is_file():
        run_eval(policy, {"name": "language_table"}, [], None, EPISODES, SEED, out, 10, [])
    return [
        {
            "policy": label,
            "family": family,
            "episodes": f"{found['n']:.0f}",
            **{name: f"{100 * found[name]:.1f}" for name in ("success", "low", "high")},
            "steps": f"{found['steps']:.0f}",
        }
        for family, found in summary(read_results(out / "results.json")).items()
    ]


def tables() -> dict[str, str]:
    """The README's table, from results.csv: one column per policy."""
    rows = read_table(HERE / "results.csv")
    labels = [*dict.fromkeys(r["policy"] for r in rows)]
    cells = {(r["policy"], r["family"]): r["success"] for r in rows}
    families = [*dict.fromkeys(r["family"] for r in rows)]
    lines = [[f, *(cells.get((label, f), "") for label in labels)] for f in families]
    total = {r["policy"]: f"{r['low']} to {r['high']}" for r in rows if r["family"] == "all"}
    lines.append(["95 % interval of all", *(total[label] for label in labels)])
    return {"table": markdown(["success, %", *labels], lines)}


def main() -> None:
    """Record, train, evaluate; write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(POLICIES), default=list(POLICIES))
    parser.add_argument("--until", choices=["train"])
    options = parser.parse_args()
    record(options.only)
    folders = {name: trained(name) for name in options.only}
    if options.until == "train":
        return
    path = HERE / "results.csv"
    for name, folder in folders.items():
        label = POLICIES[name][1]
        new = evaluated(label, folder, RUNS / name / "eval")
        rows = read_table(path) if path.is_file() else []
        write_table(path, [*(r for r in rows if r["policy"] != label), *new])
    put(HERE / "README.md", "table", tables()["table"])


if __name__ == "__main__":
    main()
