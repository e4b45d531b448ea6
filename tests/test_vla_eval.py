"""vla-eval's protocol: hello, one action a reply, episodes, errors."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest

pytest.importorskip("starlette")
from protocol_clients import IMAGE, http_client
from wire_formats import png

from vla.serve.handshake import harness_specs, interface
from vla.types import ActionSpace

# Starlette's test client emits deprecation warnings
pytestmark = pytest.mark.filterwarnings("default")


def send(socket: Any, kind: str, seq: int = 1, **payload: Any) -> None:
    message = {"type": kind, "payload": payload, "seq": seq, "timestamp": 0.5}
    socket.send_bytes(msgpack.packb(message))


def answer(socket: Any) -> Any:
    found = msgpack.unpackb(socket.receive_bytes())
    assert set(found) == {"type", "payload", "seq", "timestamp"}
    return found


def image(brightness: int) -> dict[str, Any]:
    data = png(IMAGE // 100 * brightness)
    return {"__image__": True, "format": "png", "data": data, "shape": [8, 8, 3]}


def act(socket: Any, brightness: int, seq: int = 7) -> np.ndarray:
    images = {"agentview": image(brightness)}
    send(socket, "observation", seq, images=images, task_description="go")
    found = answer(socket)
    assert (found["type"], found["seq"]) == ("action", seq), found
    actions = found["payload"]["actions"]
    assert actions["shape"] == [8] and actions["dtype"] == "<f4"
    return np.frombuffer(actions["data"], "<f4")


def test_the_client_speaks_first_and_gets_the_servers_hello() -> None:
    with http_client(state_dim=2) as http, http.websocket_connect("/vla-eval") as socket:
        send(socket, "hello", 5, harness_version="0.8.0", protocol_version=1)
        hello = answer(socket)
        assert (hello["type"], hello["seq"]) == ("hello", 5)
        payload = hello["payload"]
        assert payload["protocol_version"] == 1 and payload["capabilities"] == {}
        assert payload["observation_spec"]["state"]["dims"] == 2
        send(socket, "hello", 6, protocol_version=2)
        assert "version 2 is not supported" in answer(socket)["payload"]["error"]
        assert http.get("/health").json() == {"status": "ok"}
        assert http.get("/config").json()["config"]["state_dim"] == 2
        assert http.get("/config?max_batch_size=8").status_code == 422


def test_every_reply_has_one_action_and_the_chunk_is_kept_until_its_end() -> None:
    with http_client(horizon=3) as http, http.websocket_connect("/vla-eval") as socket:
        # the brightness of the observation for which the chunk was predicted
        assert [act(socket, b)[0] for b in (100, 50, 40, 30)] == [100, 100, 100, 30]
        send(socket, "episode_start", task={"name": "t"})  # no reply; drops the chunk
        assert act(socket, 20)[0] == 20
        send(socket, "episode_end", metrics={}, steps=1, elapsed_sec=0.1)
        assert act(socket, 60)[0] == 60
        with http.websocket_connect("/vla-eval") as other:
            assert act(other, 10)[0] == 10 and act(socket, 50)[0] == 60


def test_frames_between_policy_calls_are_part_of_the_history() -> None:
    with http_client(horizon=2, history=2) as http, http.websocket_connect("/vla-eval") as socket:
        assert [act(socket, b)[1] for b in (100, 50, 40)] == [100, 100, 50]  # oldest frame


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\xc1", "not a msgpack message"),
        (msgpack.packb({"type": "hello"}), "has no payload, seq, timestamp"),
        (msgpack.packb({"type": "x", "payload": {}, "seq": 1, "timestamp": 0}), "expected one of"),
        (msgpack.packb({"type": "hello", "payload": 1, "seq": 1, "timestamp": 0}), "a mapping"),
        (
            msgpack.packb({"type": "observation", "payload": {}, "seq": 1, "timestamp": 0}),
            "the instruction must be a text",
        ),
    ],
)
def test_an_error_keeps_the_connection(message: bytes, reason: str) -> None:
    with http_client() as http, http.websocket_connect("/vla-eval") as socket:
        socket.send_bytes(message)
        found = answer(socket)
        assert found["type"] == "error" and reason in found["payload"]["error"]
        socket.send_text("{}")
        assert "text message" in answer(socket)["payload"]["error"]
        assert act(socket, 100)[0] == 100


@pytest.mark.parametrize(
    ("unit", "low", "kind"),
    [
        ("closed", 0.0, "binary_close_01"),
        ("closed", -1.0, "binary_close_positive"),
        ("open", -1.0, "binary_close_negative"),
        ("", -1.0, None),
    ],
)
def test_the_gripper_is_stated_with_its_sign_or_not_at_all(
    unit: str, low: float, kind: str | None
) -> None:
    from vla.policies.spec import RobotSpec

    space = ActionSpace(("x", "gripper"), ("m", unit), (-1, low), (1, 1), binary=("gripper",))
    found = harness_specs(interface(RobotSpec(space, ("top",), (8, 8)), "arm"))
    stated = found.get("action_spec", {}).get("gripper", {})
    assert stated.get("format") == kind
