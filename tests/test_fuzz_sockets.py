"""Mutated messages through sockets: the server answers or refuses every one, and lives."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

pytest.importorskip("starlette")
pytest.importorskip("zmq")
import zmq
from fake_policies import SummingPolicy
from fuzzing import mutated
from server_processes import free_port, running_server
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from wire_formats import CAMERAS, FORMATS

COUNT = int(os.environ.get("VLA_FUZZ_SOCKETS", "500"))  # messages of each protocol
PATHS = {"openpi": "/", "vla_eval": "/vla-eval"}
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    port = free_port()
    policy = SummingPolicy(CAMERAS, horizon=2, state_dim=2)
    with running_server(policy, zmq_port=port) as (address, service, budget):
        yield address, port
        assert budget.used == 0
        assert httpx.get(f"http://{address}/healthz").text == "OK"
        fields, text = FORMATS["openpi"].read(FORMATS["openpi"].write(FORMATS["openpi"].message()))
        assert service.submit(fields, text, "alive").result(10).actions.shape == (2, 8)


def test_act_never_fails(server: tuple[str, int]) -> None:
    statuses = set()
    with httpx.Client(base_url=f"http://{server[0]}", timeout=20) as http:
        for message in mutated("openvla", COUNT, seed=1):
            headers = {"content-type": "application/json"}
            statuses.add(http.post("/act", content=message, headers=headers).status_code)
    assert {200, 400} <= statuses <= {200, 400, 413, 422}, statuses


@pytest.mark.parametrize("name", PATHS)
def test_websockets_stay_open(name: str, server: tuple[str, int]) -> None:
    answers = closed = 0
    messages = mutated(name, COUNT, seed=1)
    message: Any = next(messages)
    while message is not None:
        with connect(f"ws://{server[0]}{PATHS[name]}", compression=None, max_size=None) as socket:
            if name == "openpi":
                socket.recv(20)
            try:
                for message in messages:
                    socket.send(message)
                    if name == "openpi" or not _is_silent(message):
                        socket.recv(20)
                        answers += 1
                message = None
            except ConnectionClosed:
                closed += 1
    assert answers > COUNT / 2 and closed == 0


def _is_silent(message: bytes) -> bool:
    """True for messages of vla-eval without a reply: a valid envelope of an event."""
    from vla.serve.protocols.vla_eval import read_envelope
    from vla.serve.service import RequestError

    try:
        return read_envelope(message)[0] not in ("hello", "observation")
    except RequestError:
        return False


def test_zmq_answers_every_request(server: tuple[str, int]) -> None:
    socket = zmq.Context.instance().socket(zmq.REQ)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVTIMEO, 20_000)
    socket.connect(f"tcp://127.0.0.1:{server[1]}")
    for message in mutated("gr00t", COUNT, seed=1):
        socket.send(message)
        assert socket.recv()
    socket.close()
