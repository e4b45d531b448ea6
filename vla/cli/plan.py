"""The verb that predicts memory and time of a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from vla.cli.options import Json, Overrides


def plan(
    config: Annotated[Path, typer.Argument(help="YAML of a run, for example configs/swap.yaml")],
    overrides: Overrides = None,
    gpu: Annotated[str, typer.Option(help="h100, a100, rtx4090 ...; an unknown one lists all")] = (
        "h100"
    ),
    count: Annotated[
        Optional[int],
        typer.Option(min=1, help="GPUs that share a batch; default: those of trainer"),
    ] = None,
    utilisation: Annotated[
        Optional[float],
        typer.Option(
            help="share of the GPU's peak rate; default: 0.12, near the mean measured in "
            "experiments/gpu"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict memory, speed and the largest batch of a run, without weights, data or a GPU.

    Example: vla plan configs/recipes/paligemma2_3b_fsdp.yaml --gpu a100 --count 8
    """
    from vla.config import load_config
    from vla.training.config import RunConfig

    checked = load_config(config, overrides or [], RunConfig)
    from vla.training.planning.plan import UTILISATION, check
    from vla.training.planning.plan import plan as make_plan
    from vla.training.planning.report import describe, note_assumed
    from vla.training.planning.survey import make_survey
    from vla.utils.tables import print_table

    share = UTILISATION if utilisation is None else utilisation
    check(checked, gpu, count, share)
    found = make_plan(checked, make_survey(checked), gpu, count, share)
    note = note_assumed(found)
    if note:
        print(note, file=sys.stderr)
    if as_json:
        print(json.dumps(found.to_dict(), indent=1))
    else:
        print_table([{"name": n, "value": v} for n, v in describe(found)], str(config), False)
