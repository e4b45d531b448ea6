"""Table, curves and copies of what the runs wrote, for this folder. Usage: python experiments/tabletop_seen/report.py"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

from vla.evaluate import Result
from vla.report import plot_curves, read_curves, table_rows

HERE, RUNS = Path(__file__).parent, Path("runs/seen")


def main() -> None:
    """Everything but the README's words."""
    runs = {"web": RUNS / "web", "policy": RUNS / "policy"}
    plot_curves(runs, HERE / "curves.png")
    for name, run in runs.items():
        series = read_curves(run)
        steps = sorted({s for points in series.values() for s, _ in points})
        table = {name: dict(points) for name, points in series.items()}
        with (HERE / f"metrics_{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["step", *table])
            writer.writerows([s, *(f"{table[n][s]:.6g}" if s in table[n] else "" for n in table)] for s in steps)
    shutil.copytree(RUNS / "policy" / "policy", HERE / "policy", dirs_exist_ok=True)
    episodes = [Result(**row) for row in json.loads((HERE / "eval" / "results.json").read_text())["episodes"]]
    rows = table_rows({"token policy": episodes})
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(row.values()) + " |")


if __name__ == "__main__":
    main()
