"""The verbs that state a policy's interface to robot programs and compare it with theirs."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from vla.cli.options import Json, Policy, Robot

_CALLS = 10  # requests that are timed


def info(policy: Policy, robot: Robot = None, as_json: Json = False) -> None:
    """What POLICY expects of a robot program and returns: cameras, actions, units, conventions.

    The same as the server's page /about. What is not saved with the policy is unknown (null).
    """
    from vla.serve.handshake import text

    about = _interface(policy, robot, {})
    print(json.dumps(about, indent=1) if as_json else "\n".join(text(about)))


def check_declaration(
    policy: Path,
    robot: str | None,
    file: Path,
    cameras: Mapping[str, str],
    execution: Mapping[str, Any],
) -> None:
    """``vla serve --check``: list the differences from a client's declaration; exit code 1 if any.

    Raises:
        ConfigError: the file is not a JSON object with keys of ``/about``.
    """
    from vla.errors import ConfigError
    from vla.serve.handshake import mismatches
    from vla.utils.io import read_json

    about = _interface(policy, robot, execution)
    declared = read_json(file, "write a JSON object with keys of 'vla info --json'")
    try:
        wrong, unknown = mismatches(about, declared, cameras)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    for line in unknown:
        print(f"not known: {line}")
    for line in wrong:
        print(f"mismatch: {line}")
    if wrong:
        raise typer.Exit(1)
    print(f"{file}: no mismatch with {policy}")


def client(
    url: Annotated[str, typer.Argument(help="address of a server")] = "ws://127.0.0.1:8000",
    timeout: Annotated[float, typer.Option(min=0.1, help="seconds for one request")] = 10.0,
    as_json: Json = False,
) -> None:
    """Check a running server: what its policy expects, and the latency of blank observations.

    The key is read from the environment variable VLA_API_KEY. Another program can do the same
    with vla.serve.client.PolicyClient.
    """
    import numpy as np

    from vla.serve.client import PolicyClient
    from vla.serve.handshake import text

    with PolicyClient(url, os.environ.get("VLA_API_KEY"), timeout) as server:
        about, times = server.about, []
        height, width = (side or 224 for side in about["image_size"])
        blank = dict.fromkeys(about["cameras"], np.zeros((height, width, 3), np.uint8))
        state = np.zeros(about["state_dim"], np.float32) if about["state_dim"] else None
        for _ in range(_CALLS):
            start = time.perf_counter()
            actions = server.act(blank, "wait", state)
            times.append(1000 * (time.perf_counter() - start))
    found = {
        "latency_ms_median": round(statistics.median(times), 2),
        "latency_ms_max": round(max(times), 2),
        "actions_a_reply": len(actions),
    }
    if as_json:
        print(json.dumps({"about": about, **found}, indent=1))
        return
    lines = [f"{name.replace('_', ' '):26} {value}" for name, value in found.items()]
    print("\n".join([*text(about), *lines]))


def _interface(policy: Path, robot: str | None, execution: Mapping[str, Any]) -> dict[str, Any]:
    from vla.policies.checkpoint import read_robot_specs
    from vla.policies.execution import chosen_execution
    from vla.policies.folder import find_policy
    from vla.policies.spec import pick
    from vla.serve.handshake import interface

    specs = read_robot_specs(find_policy(policy))
    name = pick(specs, robot)
    return interface(specs[name], name, chosen_execution(specs[name], **execution))
