"""Verbs that write another form of a saved policy: export, merge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Optional

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

Verify = Annotated[
    int, typer.Option(min=0, help="observations on which both policies must act alike; 0: none")
]


def export(
    policy: Policy,
    out: Annotated[Path, typer.Argument(help="folder to write")],
    quantize: Annotated[
        Optional[Literal["int8"]], typer.Option(help="weights of matrix products in 8 bits")
    ] = None,
    verify: Verify = 16,
    robot: Robot = None,
    plan: Plans = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    sampling_seed: SamplingSeed = None,
    json: Json = False,
) -> None:
    """Write a policy that runs without torch, and compare it with the saved one.

    The folder is written only if both policies act alike. Needs pip install 'vla\\[export]'.
    """
    options = {"quantize": quantize, "observations": verify, "robot": robot}
    decoding = decoding_options(plan, temperature, top_k, sampling_seed)
    _write(policy, out, json, decoding=decoding, **options)


def merge(
    policy: Policy,
    out: Annotated[Path, typer.Argument(help="folder to write")],
    verify: Verify = 16,
    json: Json = False,
) -> None:
    """Write a whole policy whose LoRA adapters are part of its weights.

    The folder is written only if both policies act alike.
    """
    _write(policy, out, json, form="policy", observations=verify)


def _write(policy: Path, out: Path, json: bool, **options: Any) -> None:
    from json import dumps

    from vla.evaluation.export import report_lines, run_export

    report = run_export(policy, out, **options)
    print(dumps(report, indent=1) if json else "\n".join(report_lines(report)))
