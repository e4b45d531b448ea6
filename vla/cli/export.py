"""The verb that writes a policy for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from vla.cli.options import (
    Json,
    Plans,
    Policy,
    Robot,
    SamplingSeed,
    Temperature,
    TopK,
    decoding_options,
)


def export(
    policy: Policy,
    out: Annotated[Path, typer.Argument(help="folder to write")],
    form: Annotated[
        Literal["onnx", "policy"],
        typer.Option(
            "--format",
            help="onnx: graphs for onnxruntime; policy: a saved policy with merged LoRA adapters",
        ),
    ] = "onnx",
    quantize: Annotated[
        Optional[Literal["int8"]], typer.Option(help="weights of matrix products in 8 bits")
    ] = None,
    verify: Annotated[
        int,
        typer.Option(min=0, help="observations on which both policies must act alike; 0: none"),
    ] = 16,
    robot: Robot = None,
    plan: Plans = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    sampling_seed: SamplingSeed = None,
    json: Json = False,
) -> None:
    """Write a policy that runs without torch, or one with merged adapters, and compare it.

    The folder is written only if both policies act alike. Needs pip install 'vla\\[export]'.
    """
    from json import dumps

    from vla.evaluation.export import report_lines, run_export

    decoding = decoding_options(plan, temperature, top_k, sampling_seed)
    report = run_export(policy, out, form, quantize, verify, robot, decoding)
    print(dumps(report, indent=1) if json else "\n".join(report_lines(report)))
