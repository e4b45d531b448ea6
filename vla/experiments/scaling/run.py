"""``vla scale``: plan a ladder, execute its runs, collect their rows, fit and draw."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from vla.errors import ConfigError
from vla.experiments.scaling.ask import answer
from vla.experiments.scaling.ladder import (
    ScaleConfig,
    SweepRun,
    finished,
    load_ladder,
    read_rows,
    stages,
    sweep_runs,
    write_rows,
)
from vla.experiments.scaling.launchers import check_launcher, submit
from vla.experiments.scaling.plan import costs, show_plan
from vla.experiments.scaling.report import write_report
from vla.experiments.scaling.reproduce import compare
from vla.utils.csv_tables import check_blocks


def collect(config: ScaleConfig, report: bool = False) -> list[dict[str, str]]:
    """Add the rows of finished runs to the ladder's table and return all rows.

    Rows stay if the folder of their run is gone. ``report``: write the report as well.
    """
    path = Path(config.out) / config.results
    if not Path(config.runs).is_dir():
        return read_rows(path)
    with FileLock(Path(config.runs) / "results.lock"):
        rows: list[dict[str, Any]] = list(read_rows(path))
        known = finished(rows)
        for file in sorted(Path(config.runs).glob("*/row.json")):
            new = json.loads(file.read_text(encoding="utf-8"))
            rows += [r for r in new if r["run"] not in known]
        write_rows(path, rows)
        written = read_rows(path)
        if report:
            out, rounds = Path(config.out), config.rounds
            write_report(written, out, rounds, explain=False, amount=config.amount)
        return written


def run_ladder(
    path: str,
    overrides: list[str],
    launcher: str = "local",
    dry_run: bool = False,
    fit_only: bool = False,
    reproduce: bool = False,
) -> None:
    """Run a ladder, or continue it.

    Args:
        path: the ladder's YAML.
        overrides: ``key=value`` changes of the ladder.
        launcher: local, slurm or ray.
        dry_run: print the plan only.
        fit_only: write the report from the table, train nothing.
        reproduce: execute every run again in ``runs/reproduce``, write ``reproduced.csv`` and
            compare it with the table.

    Raises:
        ConfigError: an error of the ladder, or no rows to compare with.
        ReproductionMismatch: a run has other numbers.
    """
    check_launcher(launcher)
    config = committed = load_ladder(path, overrides)
    table = Path(config.out) / config.results
    check_blocks(Path(config.out) / "README.md")
    if reproduce:
        if not read_rows(table):
            raise ConfigError(
                f"--reproduce: {table} has no rows to compare with; run without --reproduce first"
            )
        config = replace(config, results="reproduced.csv", runs=f"{config.runs}/reproduce")
    if not fit_only and not _execute_missing(
        config, Path(path).parent, launcher, dry_run, report=not reproduce
    ):
        return
    if reproduce:
        rows = collect(config)
        compare(read_rows(Path(committed.out) / committed.results), rows, table.parent)
    else:
        write_report(collect(config), Path(config.out), config.rounds, amount=config.amount)


def ask_ladder(path: str, overrides: list[str], question: str) -> None:
    """Print which sizes and amounts of data answer a question, from the finished runs.

    Raises:
        ConfigError: an error of the ladder or the question, or too few finished runs.
    """
    config = load_ladder(path, overrides)
    rows, table = collect(config), Path(config.out) / config.results
    if not rows:
        problem = "has no rows" if table.is_file() else "is missing"
        raise ConfigError(
            f"--ask: {table} {problem}; change to the folder of the ladder's runs, or run "
            f"vla scale {path} first"
        )
    answer(rows, question, config.amount, config.rounds, table)


def _execute_missing(
    config: ScaleConfig, folder: Path, launcher: str, dry_run: bool, report: bool
) -> bool:
    """Print the plan and execute the runs without rows; False after a dry run."""
    cost = costs(config, folder)
    planned = sweep_runs(config, folder, {k: v["flops"] for k, v in cost.items() if k[1]})
    done = finished(collect(config))
    missing = [r for r in planned if r.name not in done]
    starts = {(r.size, r.seed) for r in missing if r.stage == "run"}
    todo = [r for r in missing if (r.size, r.seed) in starts]
    show_plan(planned, [r for r in todo if not _is_pretrained(r, config)], cost)
    if dry_run:
        return False
    # local runs go cheapest first, so that every session adds rows; elsewhere a stage runs at once
    for stage_runs in [todo] if launcher == "local" else stages(todo):
        for name in submit(stage_runs, config, launcher):
            rows = collect(config, report=report)
            print(f"finished {name}: {len(rows)} rows in {config.out}/{config.results}", flush=True)
    return True


def _is_pretrained(run: SweepRun, config: ScaleConfig) -> bool:
    """True for a pretraining run with a policy; it is executed to compare its settings."""
    return run.stage == "pretrain" and (Path(config.runs) / run.name / "policy").is_dir()
