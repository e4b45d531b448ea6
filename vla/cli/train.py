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
    from vla.config import load_config
    from vla.training.config import RunConfig
    from vla.training.early import check_values

    checked = load_config(config, overrides or [], RunConfig, early=check_values)
    from vla.training.run import train as run_training  # slow; after the quick checks

    run_training(checked)


def demo(
    out: Annotated[Path, typer.Option(help="folder for data, policies and report")] = Path(
        "runs/demo"
    ),
    short: Annotated[
        bool,
        typer.Option("--short", help="check that every step works, in OUT/short; learns nothing"),
    ] = False,
) -> None:
    """Pack data, train three policies, evaluate them, write a report. A repeated call continues."""
    from vla.demo import run_demo

    typer.echo(f"report: {run_demo(out, short)}")
