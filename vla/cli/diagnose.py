"""The verb that finds out why a fine-tuned policy fails."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from vla.cli.options import BenchmarkName, EnvironmentId, Json, Robot, benchmark_config


def diagnose(
    policy: Annotated[Path, typer.Argument(help="folder of a training run or of a saved policy")],
    data: Annotated[
        Optional[Path], typer.Option(help="folder of packed data; default: that of the run")
    ] = None,
    benchmark: BenchmarkName = None,
    env: EnvironmentId = None,
    robot: Robot = None,
    limit: Annotated[
        int, typer.Option(min=8, help="recorded observations on which the policy predicts")
    ] = 256,
    episodes: Annotated[
        int, typer.Option(min=1, help="environment episodes for each wording of the instruction")
    ] = 20,
    as_json: Json = False,
    html: Annotated[Optional[Path], typer.Option(help="write the result as a page")] = None,
) -> None:
    """Find out why a policy fails: data, statistics, cameras, video, language, serving.

    Exit code 0: all ok; 1: warnings; 2: failures.
    """
    from vla.diagnose.report import run_diagnose

    chosen = benchmark_config(benchmark, env)
    raise typer.Exit(run_diagnose(policy, data, chosen, robot, limit, episodes, as_json, html))
