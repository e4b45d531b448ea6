"""A server on a real socket in a thread of the test, with a fake policy."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from conftest import REPOSITORY
from fake_policies import SummingPolicy
from protocol_clients import service_of

from vla.serve.access import Access
from vla.serve.limits import Budget, Limits
from vla.serve.protocols.gr00t import GrootServer
from vla.serve.server import all_protocols, make_app
from vla.serve.service import PolicyService
from vla.serve.transport import LimitedServer


@contextmanager
def running_server(
    policy: SummingPolicy | None = None, zmq_port: int | None = None, **limits: Any
) -> Iterator[tuple[str, PolicyService, Budget]]:
    """HOST:PORT of a server with these limits, its service, and its count of bytes."""
    service, bounds = service_of(policy or SummingPolicy()), Limits(**limits)
    budget = Budget(bounds)
    groot = None
    if zmq_port is not None:
        groot = GrootServer(service, False, bounds.message_bytes, budget)
        groot.bind("127.0.0.1", zmq_port)
    app = make_app(service, all_protocols(), "", Access(), bounds, budget, groot)
    port = free_port()
    server = LimitedServer(app, "127.0.0.1", port, bounds, budget, service.close)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"127.0.0.1:{port}", service, budget
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@contextmanager
def served(policy: Path, *options: str) -> Iterator[int]:
    """The port of ``vla serve`` in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "vla", "serve", str(policy), "--port", str(port), *options]
    server = subprocess.Popen(command, cwd=REPOSITORY)
    try:
        for _ in range(240):
            assert server.poll() is None, "the server has ended"
            try:
                if httpx.get(f"http://127.0.0.1:{port}/healthz").text == "OK":
                    break
            except httpx.ConnectError:
                time.sleep(0.5)
        yield port
    finally:
        server.terminate()
        server.wait(20)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def raw(address: str, data: bytes = b"") -> socket.socket:
    """A TCP connection on which ``data`` was sent."""
    host, _, port = address.partition(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.sendall(data)
    return connection
