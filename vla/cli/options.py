"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

Policy = Annotated[Path, typer.Argument(help="folder of a saved policy")]
PackedData = Annotated[Path, typer.Argument(help="folder of packed robot data")]
Overrides = Annotated[
    Optional[list[str]],
    typer.Argument(
        help="changes of the configuration as key=value, "
        "for example train.steps=100 policy.head=regression"
    ),
]
BenchmarkOverrides = Annotated[
    Optional[list[str]],
    typer.Argument(help="changes of the benchmark's options as key=value, for example size=128"),
]
BenchmarkName = Annotated[
    Optional[str],
    typer.Option(help="name of a benchmark; default: the one that the data was recorded in"),
]
EnvironmentId = Annotated[
    Optional[str], typer.Option(help="instead of --benchmark: any gymnasium id with images")
]
Robot = Annotated[Optional[str], typer.Option(help="one of the policy's robots, if it has several")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, or one GPU: cuda:1")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of text")]
VideoFolder = Annotated[
    Optional[Path], typer.Option(help="folder for results.json, contact sheet and animation")
]


def benchmark_config(name: str | None, env: str | None) -> dict[str, str]:
    """The benchmark of --benchmark or --env; empty if neither is given."""
    if name is not None and env is not None:
        raise typer.BadParameter("give --benchmark or --env, not both")
    if env is not None:
        return {"name": "gym", "id": env}
    return {} if name is None else {"name": name}
