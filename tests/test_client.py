"""The Python client against a server on a real socket."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
from command_line import call, here, line
from conftest import REPOSITORY
from fake_policies import SummingPolicy
from protocol_clients import IMAGE
from server_processes import free_port, running_server
from test_readme import blocks

from vla.serve import client as module
from vla.serve.access import KEY
from vla.serve.client import PolicyClient, Refused

__all__ = ["here", "line"]  # fixtures
pytestmark = pytest.mark.filterwarnings("default")
IMAGES = {"top": IMAGE}


def test_numpy_in_numpy_out_and_refusals_keep_the_connection() -> None:
    kind = SummingPolicy(horizon=3, history=2, state_dim=2)
    with running_server(kind) as (address, *_), PolicyClient(f"ws://{address}") as policy:
        assert policy.about["horizon"] == 3
        actions = policy.act(IMAGES, "go", [1, 2])
        assert actions.shape == (3, 8) and actions.dtype == np.float32
        assert actions[0, :4].tolist() == [100, 100, 2, 6]
        for images, state, reason in (
            ({}, [1, 2], "no image"),
            (IMAGES, [1], "a state of 2 finite numbers, got 1"),
            (IMAGES, None, "no 'state'"),
            (IMAGES, [], "got 0"),
        ):
            with pytest.raises(Refused, match=reason):
                policy.act(images, "go", state)
        dark = {"top": IMAGE // 2}
        assert policy.act(dark, "go", [1, 2])[0, 1] == 100  # the same history
        policy.reset()
        assert policy.act(dark, "go", [1, 2])[0, 1] == 50


def test_a_lost_connection_is_opened_again_and_a_call_ends_in_time() -> None:
    with running_server() as (address, *_):
        policy = PolicyClient(f"ws://{address}", timeout=5)
        assert policy._socket is not None
        policy._socket.close()
        assert policy.act(IMAGES, "go")[0, 0] == 100
        policy.timeout = 0.3
    with pytest.raises(TimeoutError, match=r"no answer within 0.3 s"):
        policy.act(IMAGES, "go")
    with pytest.raises(TimeoutError):
        PolicyClient(f"ws://127.0.0.1:{free_port()}", timeout=0.2)


def test_the_key_is_sent_and_a_wrong_one_is_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(KEY, "secret")
    with running_server() as (address, *_):
        with PolicyClient(f"ws://{address}", "secret") as policy:
            assert policy.act(IMAGES, "go").shape == (1, 8)
        with pytest.raises(ConnectionError, match="HTTP status 403"):
            PolicyClient(f"ws://{address}", "wrong")


def test_the_file_needs_nothing_but_numpy_msgpack_and_websockets() -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text())
    found = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    found |= {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    packages = {str(name).split(".")[0] for name in found} - set(sys.stdlib_module_names)
    assert packages == {"msgpack", "numpy", "websockets"}


def test_the_robot_loop_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first Python example of the server's page, with a robot of three control steps."""
    (code, *_) = blocks(REPOSITORY / "vla" / "serve" / "README.md", "python")
    moves: list[Any] = []

    class Robot:
        done = property(lambda self: len(moves) >= 3)

        def image(self) -> np.ndarray:
            return IMAGE

        def move(self, action: np.ndarray) -> None:
            moves.append(action)

    with running_server(SummingPolicy(horizon=2)) as (address, *_):
        code = code.replace("127.0.0.1:8000", address)
        exec(code, {"robot": Robot()})
    assert len(moves) == 4 and moves[0].shape == (8,)


def test_the_command_checks_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    with running_server() as (address, *_):
        assert call("client", f"ws://{address}") == 0
        assert "latency ms median" in capsys.readouterr().out
    assert call("client", f"ws://{address}", "--timeout", "0.2") == 2
    assert "no answer within" in capsys.readouterr().err


def test_an_address_of_another_protocol_is_refused_at_once(line: Callable[..., str]) -> None:
    for url in ("http://127.0.0.1:8000", "localhost:8000"):
        with pytest.raises(ValueError, match=f"{url}: expected ws://HOST:PORT"):
            PolicyClient(url, timeout=0.1)
    assert "expected ws://HOST:PORT" in line("client", "http://127.0.0.1:8000")
