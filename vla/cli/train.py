"""Verbs that train: train, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vla.cli.options import Overrides


def train(
    config: Annotated[Path, typer.Argument(help="YAML of a run, for example configs/swap.yaml")],
    overrides: Overrides = None,
) -> None:
    """Train a policy. A repeated call continues an interrupted run.

    Example: vla train configs/demo_token.yaml optim.lr=1e-4 output_dir=runs/my_run
    """
    from vla.training.run import train_from_file

    typer.echo(f"policy saved in {train_from_file(str(config), overrides or [])}")


def demo(
    out: Annotated[Path, typer.Option(help="folder for data, policies and report")] = Path(
        "runs/demo"
    ),
    short: Annotated[
        bool, typer.Option("--short", help="the same steps with less data and training")
    ] = False,
) -> None:
    """Pack data, train two policies, evaluate them, write a report. A repeated call continues."""
    from vla.demo import run_demo

    typer.echo(f"report: {run_demo(out, short)}")
