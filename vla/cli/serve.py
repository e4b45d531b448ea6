"""The verb that serves a policy to robot programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from vla.cli.info import check_declaration
from vla.cli.options import (
    Cameras,
    Compile,
    DelaySteps,
    Device,
    ExecutionHorizon,
    ExecutionMode,
    Json,
    Plans,
    Policy,
    Quantize,
    Robot,
    SamplingSeed,
    Temperature,
    TemporalEnsemble,
    TopK,
    camera_names,
    decoding_options,
    execution_options,
)


def serve(
    policy: Policy,
    host: Annotated[
        str, typer.Option(help="address to listen on; 0.0.0.0 is open to the network")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port")] = 8000,
    robot: Robot = None,
    camera: Cameras = None,
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
    execution_mode: ExecutionMode = None,
    delay_steps: DelaySteps = None,
    batch_window_ms: Annotated[
        float, typer.Option(help="ms that a policy call waits at most for other clients")
    ] = 5.0,
    max_batch: Annotated[
        int, typer.Option(help="clients answered by one policy call at most; 1: one at a time")
    ] = 32,
    session_timeout: Annotated[
        float,
        typer.Option(help="s after which an idle client is closed and its state dropped"),
    ] = 600.0,
    receive_timeout: Annotated[
        float, typer.Option(help="s in which a request has to arrive and its answer to be read")
    ] = 30.0,
    max_connections: Annotated[int, typer.Option(help="open connections at most")] = 64,
    max_message_mb: Annotated[float, typer.Option(help="MiB of one message at most")] = 64.0,
    max_pending_mb: Annotated[float, typer.Option(help="MiB of all messages at most")] = 256.0,
    allow_host: Annotated[
        Optional[list[str]],
        typer.Option(help="further name by which clients call the server; repeat for more"),
    ] = None,
    allow_origin: Annotated[
        Optional[list[str]],
        typer.Option(help="https://HOST:PORT of a browser page that may use it; repeat for more"),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="listen beyond loopback without VLA_API_KEY")
    ] = False,
    check: Annotated[
        Optional[Path],
        typer.Option(
            help="do not serve: list the differences from what a client declares in this JSON "
            "file, with keys of 'vla info --json'; exit code 1 if there are any"
        ),
    ] = None,
    zmq_port: Annotated[
        Optional[int],
        typer.Option(min=1, max=65535, help="TCP port of GR00T's protocol (needs 'vla\\[zmq]')"),
    ] = None,
    compile: Compile = False,
    quantize: Quantize = None,
    zmq_kill: Annotated[
        bool, typer.Option("--zmq-kill", help="GR00T clients with the key may end the server")
    ] = False,
) -> None:
    """Serve a policy over all protocols of 'vla zoo' on one port (pip install 'vla\\[serve]')."""
    cameras = camera_names(camera)
    execution = execution_options(execution_horizon, temporal_ensemble, execution_mode, delay_steps)
    if check is not None:
        check_declaration(policy, robot, check, cameras, execution)
        return
    from vla.serve.batching import Batching
    from vla.serve.limits import Limits
    from vla.serve.server import Listening, run_server

    hosts, origins = tuple(allow_host or ()), tuple(allow_origin or ())
    sizes = (max_message_mb, max_pending_mb, max_connections)
    run_server(
        policy,
        robot,
        cameras,
        state.split(","),
        device,
        decoding_options(plan, temperature, top_k, sampling_seed),
        execution,
        Listening(host, port, insecure, hosts, origins, zmq_port, zmq_kill),
        Limits(*sizes, receive_timeout, session_timeout),
        Batching(batch_window_ms, max_batch),
        compile,
        quantize,
    )


def bench_server(
    policy: Policy,
    clients: Annotated[int, typer.Option(min=1, help="concurrent openpi clients")] = 16,
    requests: Annotated[int, typer.Option(min=1, help="of each client in a round")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="for each of the two servers")] = 3,
    baseline: Annotated[
        Optional[str],
        typer.Option(help="HOST:PORT of a running server; default: one with --max-batch 1"),
    ] = None,
    device: Device = "auto",
    batch_window_ms: Annotated[float, typer.Option(help="as for vla serve")] = 5.0,
    max_batch: Annotated[int, typer.Option(help="as for vla serve")] = 32,
    as_json: Json = False,
) -> None:
    """Latency and throughput of the server, batched and one at a time, in the same run."""
    import json

    from vla.serve.bench import bench_server as measure

    options = ["--device", device, "--batch-window-ms", str(batch_window_ms)]
    options += ["--max-batch", str(max_batch), "--max-connections", str(clients + 16)]
    found = measure(policy, clients, requests, rounds, options, baseline)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    for name in ("batched", "baseline"):
        row = found[name]
        typer.echo(
            f"{name:8}  {row['answers_per_s']:7.1f} answers/s  p50 {row['p50_ms']:7.1f} ms  "
            f"p99 {row['p99_ms']:7.1f} ms"
        )
    typer.echo(
        f"{found['speedup']:.2f} times the answers with {clients} clients; {found['equal']} of "
        f"{found['answers']} answers are equal (largest difference "
        f"{found['largest_difference']:.2g})"
    )
