"""The verb that serves a policy to robot programs."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from vla.cli.options import (
    Device,
    ExecutionHorizon,
    Plans,
    Policy,
    Robot,
    SamplingSeed,
    Temperature,
    TemporalEnsemble,
    TopK,
    decoding_options,
)


def serve(
    policy: Policy,
    host: Annotated[
        str, typer.Option(help="address to listen on; 0.0.0.0 is open to the network")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port")] = 8000,
    robot: Robot = None,
    camera: Annotated[
        Optional[list[str]],
        typer.Option(help="OURS=THEIRS: the client's name of a camera; repeat for more"),
    ] = None,
    state: Annotated[
        str, typer.Option(help="the client's fields that form the state, with commas")
    ] = "state",
    device: Device = "auto",
    plan: Plans = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    sampling_seed: SamplingSeed = None,
    execution_horizon: ExecutionHorizon = None,
    temporal_ensemble: TemporalEnsemble = None,
) -> None:
    """Serve a policy over all protocols of 'vla zoo' on one port (pip install 'vla\\[serve]')."""
    pairs = [c.partition("=") for c in camera or []]
    if any(not (ours and theirs) for ours, _, theirs in pairs):
        raise typer.BadParameter(
            "--camera: give OURS=THEIRS, for example --camera top=observation/image"
        )
    from vla.serve.server import run_server

    cameras = {ours: theirs for ours, _, theirs in pairs}
    fields, execution = state.split(","), (execution_horizon, temporal_ensemble)
    decoding = decoding_options(plan, temperature, top_k, sampling_seed)
    run_server(policy, host, port, robot, cameras, fields, device, decoding, *execution)
