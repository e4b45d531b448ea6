"""Push and push-back with one instruction, as in the public data set, and with one of their own.

Needs `.[metaworld]`. Both policies learn these two tasks only. Writes instructions.csv and the
README's table; finished steps are skipped.
Usage: python experiments/metaworld/instructions.py [--episodes 100]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from vla.evaluation.results import read_results
from vla.evaluation.statistics import mcnemar, percentages, summary
from vla.utils.csv_tables import markdown, put, read_table, write_table

HERE = Path(__file__).parent
RUN = HERE.parent / "scaling_mt50" / "robot.yaml"
TASKS = ["--tasks", "push,push-back"]
LABELS = {"corrected": "an instruction each", "published": "one instruction for both"}


def vla(*command: str) -> None:
    """Run a command of vla."""
    subprocess.run([sys.executable, "-m", "vla", *command], check=True)


def evaluated(setting: str, episodes: int) -> list[Any]:
    """Record, train and evaluate with one setting of the benchmark's instructions."""
    folder, option = Path("runs/push") / setting, f"instructions={setting}"
    data, out = f"{folder}/data", folder / f"eval_{episodes}"
    vla("record", "metaworld/mt50", data, "--episodes", "50", "--workers", "1", *TASKS, option)
    changes = [f"data.datasets.robot={data}", f"output_dir={folder}/policy", "train.steps=1500"]
    vla("train", str(RUN), *changes)
    if not (out / "results.json").is_file():
        count = ["--episodes", str(episodes), "--workers", "1"]
        vla("eval", f"{folder}/policy/policy", *TASKS, *count, "--out", str(out))
    return read_results(out / "results.json")


def tables() -> dict[str, str]:
    """The README's table, from instructions.csv."""
    titles = ["instructions", "task", "episodes", "success, %", "95 % interval", "p"]
    lines = [
        [*list(r.values())[:4], f"{r['low']} to {r['high']}", r["p"]]
        for r in read_table(HERE / "instructions.csv")
    ]
    return {"instructions": markdown(titles, lines)}


def main() -> None:
    """Compare the two settings on the same episodes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=100)
    options = parser.parse_args()
    found = {setting: evaluated(setting, options.episodes) for setting in LABELS}
    rows = []
    for setting, label in LABELS.items():
        for task in ("push", "push-back"):
            own, other = ([r for r in found[s] if r.task == task] for s in (setting, "corrected"))
            p = "" if setting == "corrected" else f"{mcnemar(own, other)['p']:.2g}"
            start = {"instructions": label, "task": task, "episodes": str(len(own))}
            rows.append(start | percentages(summary(own)[task]) | {"p": p})
    write_table(HERE / "instructions.csv", rows)
    put(HERE / "README.md", "instructions", tables()["instructions"])


if __name__ == "__main__":
    main()
