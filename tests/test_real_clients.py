"""Published clients, unmodified, drive an episode of the tabletop to success."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
from conftest import REPOSITORY
from server_processes import free_port, served

from vla.benchmarks.base import SEED
from vla.config import build
from vla.policies.checkpoint import read_robot_specs

POLICY = REPOSITORY / "experiments" / "tabletop_seen" / "policy"
# Client -> module that its interpreter must have. Clients that need another numpy run in an
# environment of their own: VLA_PYTHON_OPENPI=/path/to/python pytest -m slow ...
MODULES = {
    "openpi": "openpi_client",
    "openvla": "json_numpy, requests",
    "vla_eval": "vla_eval",
    "gr00t": "zmq",
}
EPISODES = 4  # at most, until one succeeds
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ports() -> Iterator[tuple[int, int]]:
    zmq_port = free_port()
    with served(POLICY, "--zmq-port", str(zmq_port)) as port:
        yield port, zmq_port


@pytest.mark.parametrize("name", MODULES)
def test_a_client_drives_an_episode_to_success(name: str, ports: tuple[int, int]) -> None:
    python = os.environ.get(f"VLA_PYTHON_{name.upper()}", sys.executable)
    if subprocess.run([python, "-c", f"import {MODULES[name]}"], capture_output=True).returncode:
        pytest.skip(f"{python} has no {MODULES[name]}")
    address = f"127.0.0.1:{ports[name == 'gr00t']}"
    script = Path(__file__).with_name("real_clients.py")
    client = subprocess.Popen(
        [python, str(script), name, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert any(_succeeds(client, episode) for episode in range(EPISODES))
    finally:
        client.kill()
        client.communicate()


def _succeeds(client: subprocess.Popen[bytes], episode: int) -> bool:
    spec = next(iter(read_robot_specs(POLICY).values()))
    benchmark: Any = build("benchmark", spec.benchmark)
    task = benchmark.default_tasks()[0]
    env = benchmark.make_env(task)
    seen, info = env.reset(seed=SEED + episode)
    done, first = False, True
    while not done:
        action = _ask(client, seen["images"][spec.cameras[0]], seen["instruction"], first)
        seen, _, terminated, truncated, info = env.step(action)
        done, first = terminated or truncated, False
    return bool(info["success"])


def _ask(client: subprocess.Popen[bytes], image: Any, instruction: str, first: bool) -> np.ndarray:
    assert client.stdin is not None and client.stdout is not None
    pixels = np.ascontiguousarray(image).tobytes()
    step = {"shape": image.shape, "bytes": len(pixels), "instruction": instruction, "first": first}
    client.stdin.write(json.dumps(step).encode() + b"\n" + pixels)
    client.stdin.flush()
    line = client.stdout.readline()
    assert line, "the client ended"
    return np.array(json.loads(line), np.float32)
