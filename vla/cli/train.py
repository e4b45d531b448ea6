"""Verbs that train: train, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from vla.cli.options import Overrides


def train(
    config: Annotated[Path, typer.Argument(help="YAML of a run, for example configs/swap.yaml")],
    overrides: Overrides = None,
    launcher: Annotated[
        Literal["local", "slurm"],
        typer.Option(help="slurm: a job that is queued again after a preemption (vla\\[cluster])"),
    ] = "local",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="start over in a new folder: output_dir-2, -3 ...")
    ] = False,
) -> None:
    """Train a policy. A repeated call continues an interrupted run.

    With a larger train.steps it continues a finished run.

    Example: vla train configs/demo_token.yaml optim.lr=1e-4 output_dir=runs/my_run
    """
    from vla.config import load_config
    from vla.training.config import RunConfig
    from vla.training.early import check_values, in_new_folder

    checked = load_config(config, overrides or [], RunConfig, early=check_values)
    if fresh:
        checked = in_new_folder(checked)
    if launcher == "slurm":
        from vla.training.slurm import check_slurm, submit

        check_slurm()
        job = submit(checked)
        print(f"job {job.job_id}; its log: {job.paths.stderr}")
        return
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
