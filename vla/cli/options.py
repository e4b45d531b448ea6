"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

if TYPE_CHECKING:
    from vla.policies.decoding import DecodingOptions

Policy = Annotated[Path, typer.Argument(help="folder of a saved policy, or hf://owner/name")]
PackedData = Annotated[Path, typer.Argument(help="folder of packed data")]
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
Tasks = Annotated[
    Optional[list[str]],
    typer.Option(
        "--task",
        "--tasks",
        help="task or group; several with commas or repeated; list: vla zoo --tasks BENCHMARK",
    ),
]
Simulator = Annotated[
    str, typer.Argument(help="name of a benchmark, or a gymnasium environment as module:id")
]
EnvironmentId = Annotated[
    Optional[str], typer.Option(help="instead of --benchmark: any gymnasium id, or module:id")
]
Plans = Annotated[
    Optional[Literal["true", "false", "auto"]],
    typer.Option(
        "--plan",
        help="write a plan before the action; auto: the policy chooses",
    ),
]
Temperature = Annotated[
    Optional[float], typer.Option(help="sample text tokens at this temperature; 0: most likely")
]
TopK = Annotated[
    Optional[int], typer.Option(help="sample among this many most likely tokens; 0: all allowed")
]
SamplingSeed = Annotated[Optional[int], typer.Option(help="seed of the sampled tokens")]
Robot = Annotated[Optional[str], typer.Option(help="one of the policy's robots, if it has several")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, or one GPU: cuda:1")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of text")]
Compile = Annotated[
    bool, typer.Option("--compile", help="compile the decoding pass first (takes minutes)")
]
Quantize = Annotated[
    Optional[Literal["int8"]],
    typer.Option(help="store the decoder's weights in 8 bits (needs 'vla\\[quantize]')"),
]
ExecutionHorizon = Annotated[
    Optional[int],
    typer.Option(
        help="actions of a chunk that are executed before the policy predicts again; "
        "default: as saved with the policy, else the whole chunk"
    ),
]
TemporalEnsemble = Annotated[
    Optional[float],
    typer.Option(
        help="predict at every step and average all predictions of it with weights exp(-VALUE k), "
        "k = 0 for the oldest (ACT: 0.01); default: as saved with the policy, else off"
    ),
]
ExecutionMode = Annotated[
    Optional[Literal["synchronous", "asynchronous", "delay_aware"]],
    typer.Option(
        help="during a prediction the robot waits, or executes the old chunk; delay_aware drops "
        "the past steps of the new chunk; default: as saved with the policy, else synchronous"
    ),
]
DelaySteps = Annotated[
    Optional[int],
    typer.Option(
        help="control steps that a prediction takes, for the last two modes; default: measured"
    ),
]
Cameras = Annotated[
    Optional[list[str]],
    typer.Option(
        "--camera",
        help="OURS=THEIRS: name of a camera in the environment or of the client; repeat for more",
    ),
]
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


def named_benchmark(name: str, overrides: list[str] | None) -> tuple[str, list[str]]:
    """Benchmark and options of an argument that is its name, or a gymnasium id as module:id."""
    given = overrides or []
    return ("gym", [f"id={name}", *given]) if ":" in name else (name, given)


def camera_names(values: list[str] | None) -> dict[str, str]:
    """Camera of the policy -> name on the other side, of --camera."""
    pairs = [value.partition("=") for value in values or []]
    if any(not (ours and theirs) for ours, _, theirs in pairs):
        raise typer.BadParameter(
            "--camera: give OURS=THEIRS, for example --camera top=observation/image"
        )
    return {ours: theirs for ours, _, theirs in pairs}


def split_names(values: list[str] | None) -> list[str]:
    """Names of an option that is repeated or has commas."""
    return [name.strip() for value in values or [] for name in value.split(",") if name.strip()]


def execution_options(
    horizon: int | None, ensemble: float | None, mode: str | None, delay: int | None
) -> dict[str, Any]:
    """Options of ``chosen_execution``."""
    return {"horizon": horizon, "temporal_ensemble": ensemble, "mode": mode, "delay": delay}


def decoding_options(
    plan: str | None, temperature: float | None, top_k: int | None, seed: int | None
) -> DecodingOptions:
    """The changes of a policy's decoding that the options of a command describe."""
    from vla.policies.decoding import DecodingOptions

    modes: dict[str | None, Literal[False, True, "auto"]] = {
        "true": True,
        "false": False,
        "auto": "auto",
    }
    return DecodingOptions(modes.get(plan), temperature, top_k, seed)
