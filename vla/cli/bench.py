"""The verb that measures the latency of a saved policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from vla.cli.options import Compile, Device, Json, Policy, Quantize, Robot


def bench(
    policy: Policy,
    steps: Annotated[int, typer.Option(min=1, help="consecutive steps that are measured")] = 30,
    compile: Compile = False,
    quantize: Quantize = None,
    robot: Robot = None,
    device: Device = "auto",
    out: Annotated[Optional[Path], typer.Option(help="JSON file for the results")] = None,
    as_json: Json = False,
) -> None:
    """Latency of a policy that generates text, beside Hugging Face's generate."""
    import json

    from vla.evaluation.bench import run_bench
    from vla.evaluation.bench_text import report

    found = run_bench(policy, robot, device, steps, compile, quantize, out)
    typer.echo(json.dumps(found, indent=1) if as_json else report(found))
