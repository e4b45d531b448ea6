"""Verbs that evaluate a saved policy: eval, eval-offline, eval-vqa."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from vla.cli.options import (
    BenchmarkName,
    BenchmarkOverrides,
    EnvironmentId,
    PackedData,
    Policy,
    Robot,
    VideoFolder,
    benchmark_config,
)


def evaluate(
    policy: Policy,
    overrides: BenchmarkOverrides = None,
    benchmark: BenchmarkName = None,
    env: EnvironmentId = None,
    task: Annotated[
        Optional[list[str]],
        typer.Option(help="task; repeat the option for more; list: vla zoo --tasks BENCHMARK"),
    ] = None,
    group: Annotated[
        Optional[str], typer.Option(help="all tasks of a group, or 'all' tasks of the benchmark")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="episodes per task")] = 250,
    seed: Annotated[
        int, typer.Option(help="first seed; equal seeds give equal episodes for every policy")
    ] = 1_000_003,
    num_envs: Annotated[int, typer.Option(min=1, help="parallel environments")] = 50,
    out: VideoFolder = None,
    robot: Robot = None,
    compare_to: Annotated[
        Optional[Path], typer.Option(help="results.json of another policy: McNemar's exact test")
    ] = None,
) -> None:
    """Success rates in simulation, with 95 % intervals.

    Example: vla eval runs/my_run/policy --episodes 50 --out runs/my_eval size=128
    """
    from vla.evaluation.run import run_eval

    run_eval(
        policy,
        benchmark_config(benchmark, env),
        task or [],
        group,
        episodes,
        seed,
        out,
        num_envs,
        overrides or [],
        robot,
        compare_to,
    )


def evaluate_offline(
    policy: Policy,
    data: PackedData,
    split: Annotated[str, typer.Option(help="train or val")] = "val",
    episodes: Annotated[
        Optional[int], typer.Option(min=1, help="number of episodes; default: all of the split")
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="folder for offline.json and a plot")] = None,
    robot: Robot = None,
) -> None:
    """Errors of predicted actions on recorded observations, in robot units."""
    from vla.evaluation.offline_report import run_offline

    run_offline(policy, data, split, episodes, out, robot)


def evaluate_vqa(
    policy: Policy,
    data: Annotated[Path, typer.Argument(help="folder of packed web data")],
    questions: Annotated[int, typer.Option(min=1, help="number of questions")] = 2000,
    out: Annotated[Optional[Path], typer.Option(help="folder for vqa.json")] = None,
) -> None:
    """Accuracy of a policy's answers to questions about held-out web images."""
    from vla.evaluation.vqa import run_vqa

    run_vqa(policy, data, out, questions)
