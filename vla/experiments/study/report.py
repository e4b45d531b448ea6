"""Write a study's CSV tables, README blocks and figures from its summaries; nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vla.experiments.study.config import StudyConfig
from vla.experiments.study.figures import draw
from vla.experiments.study.settings import COLUMNS, settings_rows
from vla.experiments.study.summaries import read_results
from vla.experiments.study.tables import PAIRS, RESULTS, pair_rows, readme_blocks, result_rows
from vla.utils.csv_tables import put, write_table


def report_tables(config: StudyConfig) -> dict[str, tuple[list[dict[str, Any]], Sequence[str]]]:
    """CSV file of the report -> its rows and columns; empty if the study has no results yet."""
    results = read_results(Path(config.out))
    if not (results.success or results.answers):
        return {}
    tables: dict[str, tuple[list[dict[str, Any]], Sequence[str]]] = {
        "results.csv": (result_rows(config, results), RESULTS),
        "pairs.csv": (pair_rows(config, results), PAIRS),
        "settings.csv": (settings_rows(config), COLUMNS),
    }
    return {name: (rows, columns) for name, (rows, columns) in tables.items() if rows}


def write_report(config: StudyConfig) -> None:
    """Write ``results.csv``, ``pairs.csv``, ``settings.csv``, the figures and the README blocks."""
    out, results = Path(config.out), read_results(Path(config.out))
    for name, (rows, columns) in report_tables(config).items():
        write_table(out / name, rows, columns)
    draw(config, results, out)
    readme = out / "README.md"
    for name, table in readme_blocks(config, results).items():
        if readme.is_file() and f"<!-- {name} -->" in readme.read_text(encoding="utf-8"):
            put(readme, name, table)
