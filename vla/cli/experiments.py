"""Verbs of larger experiments: scale, study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from vla.cli.options import Overrides

Reproduce = Annotated[
    bool,
    typer.Option("--reproduce", help="re-run everything and compare with the committed results"),
]


def scale(
    config: Annotated[Path, typer.Argument(help="YAML of a ladder: model sizes, data, seeds")],
    overrides: Overrides = None,
    launcher: Annotated[
        str,
        typer.Option(help="local, slurm (vla\\[cluster]) or ray (vla\\[ray])"),
    ] = "local",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only print the plan with FLOPs and predicted times")
    ] = False,
    fit_only: Annotated[
        bool, typer.Option("--fit-only", help="only fit and draw results.csv, without training")
    ] = False,
    ask: Annotated[
        Optional[str],
        typer.Option(
            help='answer from the finished runs which size and data reach this: "success >= 0.6" '
            'or "loss <= 0.4"'
        ),
    ] = None,
    reproduce: Reproduce = False,
) -> None:
    """Train and measure a ladder of sizes, fit scaling laws, draw curves. Repeat to continue."""
    from vla.experiments.scaling.run import ask_ladder, run_ladder

    if ask is not None:
        ask_ladder(str(config), overrides or [], ask)
        return

    run_ladder(str(config), overrides or [], launcher, dry_run, fit_only, reproduce)


def study(
    config: Annotated[Path, typer.Argument(help="YAML of a study: recipes, benchmark, pairs")],
    overrides: Overrides = None,
    only: Annotated[
        Optional[list[str]], typer.Option(help="run this recipe; repeat the option for more")
    ] = None,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="only write tables and figures, from CSV files")
    ] = False,
    reproduce: Reproduce = False,
) -> None:
    """Train and compare named recipes on the same episodes and questions.

    A repeated call continues. Several processes may run the same study: they share the recipes.
    """
    from vla.experiments.study.run import run_study

    run_study(str(config), overrides or [], only or [], report_only, reproduce)
