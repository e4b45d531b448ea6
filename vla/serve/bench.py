"""Latency and throughput of the server with concurrent openpi clients."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from vla.errors import ConfigError
from vla.serve.protocols.openpi import pack, unpack

START_SECONDS = 600  # in which a server must be ready
INSTRUCTIONS = ("pick up the red apple", "push the drum to the left", "open it", "put it back")


def bench_server(
    policy: Path,
    clients: int = 16,
    requests: int = 20,
    rounds: int = 3,
    options: Sequence[str] = (),
    baseline: str | None = None,
) -> dict[str, Any]:
    """Measurements of a server of its own, and of a baseline in the same run, in turns.

    Every client has one connection, its own images and instruction, and sends a request as soon as
    it has the last answer. Both servers get the same requests.

    Args:
        policy: folder of a saved policy.
        clients: concurrent connections.
        requests: of each client in a round; one more before them is not counted.
        rounds: for each server.
        options: further options of ``vla serve``.
        baseline: HOST:PORT of a running server; None: one with ``--max-batch 1``.

    Returns:
        For ``batched`` and ``baseline``: ``answers_per_s`` (median of the rounds), ``p50_ms``,
        ``p99_ms``; further ``speedup``, and over all answers ``equal`` (actions are equal to the
        baseline's), ``answers`` and ``largest_difference`` in robot units.

    Raises:
        ConfigError: a server does not start.
    """
    with ExitStack() as stack:
        batched = stack.enter_context(_server(policy, options))
        if baseline is None:
            baseline = stack.enter_context(_server(policy, [*options, "--max-batch", "1"]))
        addresses = {"batched": batched, "baseline": baseline}
        plan = [_messages(batched, client, requests + 1) for client in range(clients)]
        runs: dict[str, list[_Round]] = {name: [] for name in addresses}
        for _ in range(rounds):
            for name, address in addresses.items():
                runs[name].append(_Round(address, plan))
    found: dict[str, Any] = {name: _summary(done) for name, done in runs.items()}
    rates = [found[name]["answers_per_s"] for name in addresses]
    pairs = [
        (one, other)
        for first, second in zip(runs["batched"], runs["baseline"], strict=True)
        for one, other in zip(chain(*first.actions), chain(*second.actions), strict=True)
    ]
    return {
        "policy": str(policy),
        "clients": clients,
        "rounds": rounds,
        "requests": requests,
        **found,
        "speedup": rates[0] / rates[1],
        "answers": len(pairs),
        "equal": sum(np.array_equal(one, other) for one, other in pairs),
        "largest_difference": max(float(np.abs(one - other).max()) for one, other in pairs),
    }


class _Round:
    """One run of all clients: latencies in ms, actions, and the time of the whole."""

    def __init__(self, address: str, plan: Sequence[Sequence[bytes]]) -> None:
        self.address = address
        self.latency_ms: list[list[float]] = [[] for _ in plan]
        self.actions: list[list[np.ndarray]] = [[] for _ in plan]
        self.errors: list[str] = []
        self._ready = threading.Barrier(len(plan) + 1)
        threads = [
            threading.Thread(target=self._client, args=(*job,), daemon=True)
            for job in enumerate(plan)
        ]
        for thread in threads:
            thread.start()
        with suppress(threading.BrokenBarrierError):
            self._ready.wait(START_SECONDS)
        start = time.perf_counter()
        for thread in threads:
            thread.join()
        self.seconds = time.perf_counter() - start
        if self.errors:
            raise ConfigError(f"{address}: {self.errors[0]}")

    def _client(self, number: int, messages: Sequence[bytes]) -> None:
        try:
            self._ask(number, messages)
        except threading.BrokenBarrierError:
            return  # another client failed
        except (OSError, WebSocketException, ValueError) as error:
            self.errors.append(str(error) or type(error).__name__)
            self._ready.abort()

    def _ask(self, number: int, messages: Sequence[bytes]) -> None:
        with connect(f"ws://{self.address}/", max_size=None, compression=None) as connection:
            connection.recv()
            for count, message in enumerate(messages):
                if count == 1:
                    self._ready.wait()
                start = time.perf_counter()
                connection.send(message)
                reply = connection.recv()
                if isinstance(reply, str):
                    raise ValueError(reply)
                if count:
                    self.latency_ms[number].append(1000 * (time.perf_counter() - start))
                    self.actions[number].append(unpack(reply)["actions"])


def _summary(rounds: Sequence[_Round]) -> dict[str, float]:
    latency = np.concatenate([ms for done in rounds for ms in done.latency_ms])
    rates = [sum(map(len, done.latency_ms)) / done.seconds for done in rounds]
    return {
        "answers_per_s": float(np.median(rates)),
        "p50_ms": float(np.percentile(latency, 50)),
        "p99_ms": float(np.percentile(latency, 99)),
    }


def _messages(address: str, client: int, count: int) -> list[bytes]:
    """Packed requests: random images, in which a patch moves, and random states.

    Consecutive images of a robot are alike, too.
    """
    with urllib.request.urlopen(f"http://{address}/about", timeout=30) as page:
        about = json.load(page)
    random = np.random.default_rng(client)
    height, width = (side or 224 for side in about["image_size"])
    requests, side = [], max(1, height // 8)
    images = random.integers(0, 256, (len(about["cameras"]), height, width, 3), np.uint8)
    for step in range(count):
        images = images.copy()
        images[:, :side, step % width :][:, :, :side] = random.integers(0, 256, 3)
        fields: dict[str, Any] = dict(zip(about["cameras"], images, strict=True))
        if about["state_dim"]:
            fields["state"] = random.uniform(-1, 1, about["state_dim"]).astype(np.float32)
        requests.append(pack(fields | {"prompt": INSTRUCTIONS[client % len(INSTRUCTIONS)]}))
    return requests


@contextmanager
def _server(policy: Path, options: Sequence[str]) -> Iterator[str]:
    """HOST:PORT of ``vla serve`` in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vla", "serve", str(policy), "--port", str(port), *options]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    address = f"127.0.0.1:{port}"
    try:
        end = time.monotonic() + START_SECONDS
        while not _is_ready(address):
            if server.poll() is not None or time.monotonic() > end:
                raise ConfigError(f"{' '.join(command)}: the server does not start")
            time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait(10)


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/healthz", timeout=5) as page:
            return page.status == 200
    except OSError:
        return False
