"""Summarise the runs of this folder: success.csv, curves.csv, the policy and the README's table.

Usage: python experiments/tabletop_seen/report.py
"""

from __future__ import annotations

import shutil
from pathlib import Path

from vla.evaluation.results import read_results
from vla.experiments.study.summaries import CURVES, SUCCESS, curve_rows, success_rows
from vla.experiments.study.tables import success_table
from vla.utils.csv_tables import put, read_table, write_table

HERE, RUNS = Path(__file__).parent, Path("runs/seen")
EVALUATIONS = {"seeds from 1000003": "eval", "seeds from 5000003": "eval_fresh"}


def tables() -> dict[str, str]:
    """Tables of the README by marker, from ``success.csv``."""
    return {"success": success_table(read_table(HERE / "success.csv", SUCCESS))}


def main() -> None:
    """Summarise the runs and write the README's tables."""
    # a stage that is a copied policy has no metrics
    stages = [n for n in ("web", "policy", "more") if list((RUNS / n).glob("csv-*"))]
    write_table(HERE / "curves.csv", [r for n in stages for r in curve_rows(n, RUNS / n)], CURVES)
    success = []
    for label, folder in EVALUATIONS.items():
        success += success_rows(label, read_results(RUNS / folder / "results.json"))
    write_table(HERE / "success.csv", success, SUCCESS)
    shutil.copytree(RUNS / "more" / "policy", HERE / "policy", dirs_exist_ok=True)
    for name, text in tables().items():
        put(HERE / "README.md", name, text)


if __name__ == "__main__":
    main()
