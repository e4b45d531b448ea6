"""A server that runs for long: its memory does not grow.

``VLA_SOAK_REQUESTS=10000 pytest -m slow tests/test_server_soak.py`` sends more requests.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import httpx
import msgpack
import numpy as np
import pytest

pytest.importorskip("starlette")
from fake_policies import SummingPolicy
from protocol_clients import IMAGE, array, encoded, wire
from server_processes import running_server
from websockets.sync.client import connect

from vla.serve.limits import MIB

pytestmark = pytest.mark.filterwarnings("default")
Result = TypeVar("Result")
REQUESTS = int(os.environ.get("VLA_SOAK_REQUESTS", "300"))


def resident() -> float:
    """MiB of this process, in which the server runs."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / MIB


def soak() -> list[float]:
    """Resident memory, in MiB, after each of four parts of the requests.

    Clients of two protocols come and go; some requests are invalid, and some are large.
    """
    policy = SummingPolicy(history=1, plans=True)
    with running_server(policy) as (address, service, budget):
        sent, lock = [0], threading.Lock()
        large = wire(np.zeros((1500, 1500, 3), np.uint8))

        def more() -> int:
            with lock:
                sent[0] += 1
                return sent[0]

        def websockets() -> None:
            while True:
                with connect(f"ws://{address}/", max_size=None, compression=None) as connection:
                    connection.recv()
                    for _ in range(50):
                        if (number := more()) > REQUESTS:
                            return
                        image = large if number % 50 == 0 else wire(IMAGE)
                        prompt = "" if number % 20 == 0 else "go"
                        connection.send(msgpack.packb({"image": image, "prompt": prompt}))
                        reply = connection.recv(30)
                        assert isinstance(reply, bytes) == bool(prompt)

        def posts() -> None:
            with httpx.Client(timeout=30) as http:
                while (number := more()) <= REQUESTS:
                    body = {"image": encoded(IMAGE), "instruction": "go"}
                    reply = http.post(f"http://{address}/act", json=body if number % 9 else {})
                    assert reply.status_code == (200 if number % 9 else 400)

        def run(count: int) -> float:
            sent[0] = REQUESTS - count
            threads = [threading.Thread(target=f) for f in (websockets, posts) * 4]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            time.sleep(1.5)  # free memory is returned
            return resident()

        for _ in range(2):
            run(max(REQUESTS // 6, 100))  # caches of libraries
        seen = [run(REQUESTS // 6) for _ in range(4)]
        assert budget.used == 0 and len(service.sessions) == 0 and service.runner._memory == {}
        return seen


def large_messages() -> float:
    """Growth of resident memory, in MiB, over ten messages of 18 MiB each."""
    message = msgpack.packb(
        {"image": wire(np.full((2500, 2500, 3), 100, np.uint8)), "prompt": "go"}
    )
    small = msgpack.packb({"image": wire(np.zeros((20, 20, 3), np.uint8)), "prompt": "go"})
    with (
        running_server() as (address, _, _),
        connect(f"ws://{address}/", max_size=None, compression=None) as connection,
    ):
        connection.recv()
        for request in (small, message):  # libraries are loaded
            connection.send(request)
            connection.recv(10)
        time.sleep(0.7)
        before = resident()
        for _ in range(10):
            connection.send(message)
            reply = connection.recv(30)
            assert isinstance(reply, bytes) and array(msgpack.unpackb(reply)["actions"])[0, 0]
        end = time.monotonic() + 5
        while resident() - before > 8 and time.monotonic() < end:
            time.sleep(0.1)
        return resident() - before


def alone(function: Callable[[], Result]) -> Result:
    """Run in a process of its own: tests before this one leave free memory to the allocator."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function).result()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_memory_stays_flat_over_many_requests() -> None:
    seen = alone(soak)
    shown = ", ".join(f"{mib:.1f}" for mib in seen)
    print(f"RSS after the third to sixth part of {REQUESTS} requests: {shown} MiB")
    # The allocator keeps or frees some large messages: parts differ by up to 40 MiB without growth.
    assert sum(seen[2:]) / 2 - sum(seen[:2]) / 2 < 30


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_memory_returns_after_large_messages() -> None:
    assert alone(large_messages) < 27  # MiB: of 180, the allocator may keep one message
