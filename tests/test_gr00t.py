"""GR00T's protocol over ZMQ, with a client as Isaac-GR00T's and a real socket."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("zmq")
import zmq
from fake_policies import SummingPolicy
from protocol_clients import IMAGE, service_of
from server_processes import free_port, running_server

from vla.errors import ConfigError
from vla.serve.access import KEY
from vla.serve.limits import Budget, Limits
from vla.serve.protocols.gr00t import GrootServer

pytestmark = pytest.mark.filterwarnings("default")


class Client:
    """One REQ socket."""

    def __init__(self, port: int) -> None:
        self.socket = zmq.Context.instance().socket(zmq.REQ)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, 10_000)
        self.socket.connect(f"tcp://127.0.0.1:{port}")

    def __del__(self) -> None:
        self.socket.close()

    def __call__(self, endpoint: str, data: Any = None, token: Any = None) -> Any:
        request = {"endpoint": endpoint, "data": data, "api_token": token}
        return self.raw(msgpack.packb(request, default=_write))

    def raw(self, message: bytes) -> Any:
        self.socket.send(message)
        return msgpack.unpackb(self.socket.recv(), object_hook=_read)


def _write(array: np.ndarray) -> Any:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return {"__ndarray_class__": True, "as_npy": file.getvalue()}


def _read(value: Any) -> Any:
    if "__ndarray_class__" in value:
        return np.load(io.BytesIO(value["as_npy"]), allow_pickle=False)
    return json.loads(value["as_json"]) if "__ModalityConfig_class__" in value else value


def nested(brightness: int, **changes: Any) -> dict[str, Any]:
    video = (IMAGE // 100 * brightness)[None, None]
    state = np.array([[[1.0, 2.0]]], np.float32)
    language = {"annotation.human.task_description": [["go"]]}
    seen = {"video": {"top": video}, "state": {"arm": state}, "language": language}
    return {"observation": seen | changes, "options": None}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    port = free_port()
    policy = SummingPolicy(history=2, horizon=3, state_dim=2)
    with running_server(policy, zmq_port=port):
        yield port


def test_actions_have_a_key_for_each_dimension_and_the_configuration_names_them(port: int) -> None:
    client = Client(port)
    assert client("ping")["status"] == "ok"
    config = client("get_modality_config")
    assert config["video"] == {"delta_indices": [0], "modality_keys": ["top"]}
    assert config["action"] == {"delta_indices": [0, 1, 2], "modality_keys": list("abcdefgh")}
    action, info = client("get_action", nested(100))
    assert list(action) == list("abcdefgh") and info == {"plan": "1"}
    assert action["a"].shape == (1, 3, 1) and action["a"].dtype == np.float32
    assert action["a"][0, 0, 0] == 100 and action["d"][0, 0, 0] == 6  # two frames of the state


def test_flat_observations_get_flat_actions(port: int) -> None:
    flat = {
        "video.top": IMAGE[None],
        "state.arm": np.array([[1.0, 2.0]]),
        "annotation.human.task_description": ["go"],
    }
    action = Client(port)("get_action", flat)
    assert action["action.a"].shape == (3, 1) and action["action.a"][0, 0] == 100


def test_a_socket_is_a_session_and_reset_begins_an_episode(port: int) -> None:
    client, other = Client(port), Client(port)
    for who, brightness, oldest in ((client, 100, 100), (client, 50, 100), (other, 40, 40)):
        assert who("get_action", nested(brightness))[0]["b"][0, 0, 0] == oldest
    assert client("reset", {"options": None}) == {}
    assert client("get_action", nested(20))[0]["b"][0, 0, 0] == 20


def test_invalid_requests_get_a_reason_and_the_server_lives(port: int) -> None:
    client = Client(port)
    two = np.repeat(IMAGE[None, None], 2, 0)
    for reply, reason in (
        (client("kill"), "endpoint 'kill'"),
        (client("x" * 5000), "expected ping"),
        (client("get_action"), "expected a mapping"),
        (client("get_action", nested(1, video={"top": two})), "a batch of 2"),
        (client("get_action", nested(1, language={})), "the instruction must be a text"),
        (client("get_action", nested(1, video={})), "no image for camera"),
        (client.raw(b"\xc1"), "not a msgpack message"),
    ):
        assert reason in reply["error"]
    dealer = zmq.Context.instance().socket(zmq.DEALER)
    dealer.connect(f"tcp://127.0.0.1:{port}")
    dealer.send_multipart([b"x", b"y", b"z"])  # no REQ client
    dealer.close(linger=0)
    assert client("ping")["status"] == "ok"


def test_a_failed_policy_is_a_reply_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **named: Any) -> Any:
        raise RuntimeError("broken")

    port = free_port()
    with running_server(zmq_port=port) as (_, service, budget):
        client, seen = Client(port), nested(1)
        monkeypatch.setattr(service.runner, "predict", fail)
        assert client("get_action", seen)["error"] == "the server failed: RuntimeError"
        monkeypatch.setattr(budget, "limit", 100)
        assert "too many pending messages" in client("get_action", seen)["error"]
        assert budget.used == 0 and client("ping")["status"] == "ok"


def test_an_address_that_cannot_be_used_is_an_error(port: int) -> None:
    server = GrootServer(service_of(SummingPolicy()), False, 1000, Budget(Limits()))
    server.bind("localhost", free_port())
    for host, number in (("127.0.0.1", port), ("no.such.host.invalid", free_port())):
        with pytest.raises(
            ConfigError, match=rf"--zmq-port {number} on {host}: .*; choose another"
        ):
            server.bind(host, number)
    server._socket.close()


def test_a_key_is_required_if_it_is_set_and_kill_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    service = service_of(SummingPolicy())
    with pytest.raises(ConfigError, match="it needs a key"):
        GrootServer(service, True, 1000, Budget(Limits()))
    monkeypatch.setenv(KEY, "secret")
    port = free_port()
    with running_server(zmq_port=port):
        client = Client(port)
        for token in (None, "x", 3, "é"):
            assert "Unauthorized" in client("ping", None, token)["error"]
        assert client("ping", None, "secret")["status"] == "ok"
        assert "endpoint 'kill'" in client("kill", None, "secret")["error"]
