"""Rates of recording and evaluation on MT50, disk space; writes rates.csv and the README's block.

Run it on a quiet machine. Needs `.[metaworld]`; takes about five minutes on two cores.
Usage: python experiments/metaworld/rates.py POLICY [--episodes 2] [--workers 2]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vla.evaluation.rollout import open_benchmark
from vla.utils.csv_tables import markdown, put, write_table

HERE = Path(__file__).parent
NAME = "metaworld/mt50"


def seconds(*command: str) -> float:
    """Wall-clock seconds of a command of vla, with its start."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "vla", *command], check=True)
    return time.perf_counter() - begin


def main() -> None:
    """Record and evaluate some episodes of every task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("policy", type=Path)
    parser.add_argument("--episodes", type=int, default=2, help="of each task")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    count = options.episodes * len(open_benchmark({"name": NAME}).tasks())
    common = ("--episodes", str(options.episodes), "--workers", str(options.workers))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        spent = seconds("record", NAME, str(data), *common)
        size = sum(p.stat().st_size for p in data.rglob("*.tar")) / count
        rows.append(("record expert demonstrations", count, spent, f"{size / 1e3:.0f}"))
        for label, who in (("the policy", str(options.policy)), ("the expert", "expert")):
            spent = seconds("eval", who, "--benchmark", NAME, *common)
            rows.append((f"evaluate {label}", count, spent, ""))
    lines = [
        {
            "command": label,
            "episodes": str(n),
            "processes": str(options.workers),
            "seconds": f"{spent:.0f}",
            "episodes_per_s": f"{n / spent:.2f}",
            "kB_per_episode": disk,
        }
        for label, n, spent, disk in rows
    ]
    write_table(HERE / "rates.csv", lines)
    titles = ["", "episodes", "processes", "seconds", "episodes/s", "kB an episode on disk"]
    put(HERE / "README.md", "rates", markdown(titles, [[*line.values()] for line in lines]))


if __name__ == "__main__":
    main()
