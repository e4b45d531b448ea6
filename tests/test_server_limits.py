"""Limits of connections, sizes, memory and times, on real sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx
import msgpack
import numpy as np
import pytest

pytest.importorskip("starlette")
from fake_policies import SummingPolicy
from protocol_clients import IMAGE, array, encoded, wire
from server_processes import raw, running_server
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from vla.errors import ConfigError
from vla.serve.limits import MIB, Limits

# connections that the server closes are closed by the garbage collector
pytestmark = pytest.mark.filterwarnings("default")


@contextmanager
def openpi(address: str) -> Iterator[ClientConnection]:
    with connect(f"ws://{address}/", max_size=None, compression=None) as connection:
        connection.recv()
        yield connection


def ask(connection: ClientConnection, **fields: Any) -> np.ndarray:
    connection.send(msgpack.packb({"image": wire(IMAGE), "prompt": "go", **fields}))
    reply = connection.recv(10)
    assert isinstance(reply, bytes), reply
    return array(msgpack.unpackb(reply)["actions"])


def close_code(connection: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            connection.recv(10)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


def test_connections_above_the_limit_get_503_until_another_one_closes() -> None:
    with running_server(max_connections=2) as (address, _, _):
        with openpi(address) as one, openpi(address) as two:
            with pytest.raises(InvalidStatus) as refused, openpi(address):
                pass
            assert refused.value.response.status_code == 503
            assert httpx.get(f"http://{address}/healthz").status_code == 503
            assert ask(one)[0, 0] == ask(two)[0, 0] == 100
        time.sleep(0.2)
        assert httpx.get(f"http://{address}/healthz").text == "OK"


def test_idle_and_slow_connections_are_closed() -> None:
    with ExitStack() as stack:
        server = running_server(receive_timeout=0.4, session_timeout=0.4)
        address, service, _ = stack.enter_context(server)
        half = raw(address, b"POST /act HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
        silent, header = raw(address), raw(address, b"GET /healthz HTTP/1.1\r\nHost: loc")
        idle, partial = (stack.enter_context(openpi(address)) for _ in range(2))
        ask(idle)
        assert len(service.sessions) == 1
        partial.socket.sendall(b"\x82\xfe\x10\x00abcd" + b"x" * 100)  # of 4096 bytes
        assert close_code(idle) == close_code(partial) == 1001
        assert b" 408 " in half.recv(1000)
        assert connection_ends(silent) and connection_ends(header)
        for connection in (half, silent, header):
            connection.close()
        time.sleep(0.2)
        assert len(service.sessions) == 0
        service.submit({"image": IMAGE}, "go").result(10)
        assert service.runner._memory == {}


def connection_ends(connection: Any) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_messages_are_limited_in_size_and_fragments() -> None:
    with running_server(max_message_mb=0.5) as (address, _, _):
        with openpi(address) as connection:
            connection.send(b"x" * MIB)
            assert close_code(connection) == 1009
        with openpi(address) as connection:
            with suppress(ConnectionClosed):
                connection.send(b"x" for _ in range(20_000))
            assert close_code(connection) == 1009
        body = httpx.post(f"http://{address}/act", content=b"x" * MIB)
        assert body.status_code == 413 and "larger than" in body.json()["error"]
        assert httpx.get(f"http://{address}/healthz").text == "OK"


class SlowPolicy(SummingPolicy):
    """Waits for an event in every call."""

    gate = threading.Event()

    def predict(self, *given: Any, **options: Any) -> Any:
        assert self.gate.wait(10)
        return super().predict(*given, **options)


def test_pending_messages_are_limited_and_their_bytes_are_released() -> None:
    policy = SlowPolicy()
    policy.gate = threading.Event()
    with running_server(policy, max_pending_mb=1.0) as (address, _, budget):
        large = msgpack.packb({"image": wire(IMAGE), "prompt": "go", "more": "x" * (MIB // 2)})
        with openpi(address) as one, openpi(address) as two:
            one.send(large)
            time.sleep(0.2)
            assert budget.used > MIB // 2
            two.send(large)
            assert close_code(two) == 1013
            body = {"image": encoded(IMAGE), "instruction": "go", "more": "x" * (MIB // 2)}
            busy = httpx.post(f"http://{address}/act", json=body)
            assert busy.status_code == 503 and "pending" in busy.json()["error"]
            policy.gate.set()
            assert isinstance(one.recv(10), bytes)
            one.send(large)
            assert isinstance(one.recv(10), bytes)
            time.sleep(0.2)
            assert budget.used == 0


def test_a_server_that_ends_answers_what_waits_at_once() -> None:
    policy = SlowPolicy()
    policy.gate = threading.Event()
    with ExitStack() as stack:
        with running_server(policy) as (address, _, _):
            connection = stack.enter_context(openpi(address))
            connection.send(msgpack.packb({"image": wire(IMAGE), "prompt": "go"}))
            time.sleep(0.2)
            start = time.monotonic()
        assert time.monotonic() - start < 2
        assert close_code(connection) in (1012, 1013)
    policy.gate.set()


def test_a_large_message_does_not_delay_other_clients() -> None:
    numbers = msgpack.packb({"image": list(range(200)) * 40_000, "prompt": "go"})
    with running_server() as (address, _, _), openpi(address) as large, openpi(address) as small:
        ask(small)
        large.send(numbers)
        slowest = 0.0
        for _ in range(20):
            start = time.monotonic()
            ask(small)
            slowest = max(slowest, time.monotonic() - start)
        assert slowest < 1


@pytest.mark.parametrize(
    "limits", [{"max_connections": 0}, {"max_message_mb": -1}, {"session_timeout": float("nan")}]
)
def test_limits_are_checked(limits: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Limits(**limits)
