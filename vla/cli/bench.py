"""The verb that measures the latency of a saved policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from vla.cli.options import Compile, Device, Policy, Robot


def bench(
    policy: Policy,
    steps: Annotated[int, typer.Option(min=1, help="consecutive steps that are measured")] = 30,
    compile: Compile = False,
    robot: Robot = None,
    device: Device = "auto",
    out: Annotated[Optional[Path], typer.Option(help="JSON file for the results")] = None,
) -> None:
    """Latency of a policy that generates text, beside Hugging Face's generate."""
    from vla.evaluation.bench import run_bench

    run_bench(policy, robot, device, steps, compile, out)
