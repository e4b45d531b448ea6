"""The verb that checks the conventions of a benchmark in its simulator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from vla.cli.options import BenchmarkOverrides, Simulator, named_benchmark


def bench_check(
    benchmark: Simulator,
    overrides: BenchmarkOverrides = None,
    task: Annotated[
        Optional[str], typer.Option(help="the task that is checked (default: the first)")
    ] = None,
    policy: Annotated[
        Optional[Path], typer.Option(help="a saved policy whose actions and inputs are compared")
    ] = None,
    data: Annotated[
        Optional[Path], typer.Option(help="packed data whose actions and images are compared")
    ] = None,
    attempts: Annotated[
        int, typer.Option(min=0, help="episodes in which the expert may succeed; 0: not tried")
    ] = 3,
) -> None:
    """Measure the conventions of a benchmark: PASS or FAIL, exit code 1 if one fails.

    Every benchmark: seeds, images, bounds of actions, success of its expert. A benchmark may add
    its own, for example the flip of images and the sign of the gripper.

    Example: vla bench-check libero/spatial --data data/libero_spatial
    """
    from vla.benchmarks.check_run import run_checks

    name, options = named_benchmark(benchmark, overrides)
    if not run_checks(name, options, task, policy, data, attempts):
        raise typer.Exit(1)
