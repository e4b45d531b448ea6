"""Summarise what ``vla demo`` wrote: success.csv, curves.csv, figures and the README's table.

Usage: python experiments/demo/report.py [runs/demo]
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from vla.evaluation.results import read_results
from vla.experiments.study.summaries import CURVES, SUCCESS, curve_rows, success_rows
from vla.experiments.study.tables import success_table
from vla.utils.csv_tables import put, read_table, write_table

HERE = Path(__file__).parent
POLICIES = {
    "token": "token, with plan",
    "regression": "regression, no plan",
    "untrained": "untrained",
}


def tables() -> dict[str, str]:
    """Tables of the README by marker, from ``success.csv``."""
    return {"success": success_table(read_table(HERE / "success.csv", SUCCESS))}


def main() -> None:
    """Summarise the runs and write the README's tables."""
    runs = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/demo")
    success = []
    for name, label in POLICIES.items():
        success += success_rows(label, read_results(runs / f"eval_{name}.json"))
    write_table(HERE / "success.csv", success, SUCCESS)
    curves = [r for n in ("web", "token", "regression") for r in curve_rows(n, runs / n)]
    write_table(HERE / "curves.csv", curves, CURVES)
    for name in ("curves.png", "rollouts.png"):
        shutil.copy(runs / name, HERE)
    for name, text in tables().items():
        put(HERE / "README.md", name, text)


if __name__ == "__main__":
    main()
