"""The wire protocols answer as their clients expect, with the policy's own actions, and refuse what is wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("starlette")
import msgpack
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from vla.contract import Contract
from vla.serve.engine import Engine, RequestError, Session
from vla.serve.server import KEY, make_app
from vla.serve.wire import from_json, unpack
from vla.sim.layouts import LAYOUTS

pytestmark = pytest.mark.filterwarnings("default")  # Starlette's test client warns about its own affairs


class Sums:
    """Answers with what it was shown: mean brightness, frames, state, length of the instruction."""

    robot = "arm"

    def __init__(self, cameras: tuple[str, ...] = ("top",), history: int = 1, horizon: int = 1, state_dim: int = 0) -> None:
        self.contract = Contract(LAYOUTS["rt2"], cameras, (8, 8), history=history, horizon=horizon, state_dim=state_dim)

    def holds_plan(self) -> bool:
        return False

    def predict(
        self, images: torch.Tensor, instructions: list[str], state_BTP: torch.Tensor | None = None
    ) -> tuple[np.ndarray, list[str]]:
        assert images.shape[1:] == (len(self.contract.cameras), self.contract.history, 3, 8, 8)
        out = np.zeros((1, self.contract.horizon, 8), np.float32)
        out[0, :, :3] = images[0].float().mean((1, 2, 3, 4))[0], images[0, 0, 0].float().mean(), len(instructions[0])
        out[0, :, 3] = 0 if state_BTP is None else float(state_BTP.sum())
        return out, [""]


class Plans(Sums):
    """Holds plans, and says in them how many it was told."""

    def holds_plan(self) -> bool:
        return True

    def predict(self, images: Any, instructions: Any, state_BTP: Any = None, before: Any = ()) -> tuple[np.ndarray, list[str]]:
        actions = super().predict(images, instructions, state_BTP)[0]
        actions[0, :, 4] = int(before[0] or 0)
        return actions, [str(int(before[0] or 0) + 1)]


def test_a_client_s_last_plan_is_told_to_policies_that_hold_plans_while_it_asks_for_the_same() -> None:
    engine, session = Engine(Plans()), Session()  # type: ignore[arg-type]
    asked = [engine.infer({"top": PICTURE}, text, session)[0][0, 4] for text in ("pick", "pick", "pick", "push", "push")]
    assert asked == [0, 1, 2, 0, 1] and engine.infer({"top": PICTURE}, "push", None)[0][0, 4] == 0


def client(**kind: Any) -> TestClient:
    return TestClient(make_app(Engine(Sums(**kind))))  # type: ignore[arg-type]


def wire(array: np.ndarray) -> dict[bytes, Any]:
    """As openpi's client packs arrays."""
    return {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": array.dtype.str, b"shape": array.shape}


def array(found: dict[Any, Any]) -> np.ndarray:
    return np.frombuffer(found[b"data"], found[b"dtype"]).reshape(found[b"shape"])


PICTURE = np.full((8, 8, 3), 100, np.uint8)


def test_openpi_speaks_first_answers_and_keeps_a_past_for_each_connection() -> None:
    with client(history=2, horizon=3, state_dim=2) as http, http.websocket_connect("/") as ws:
        assert msgpack.unpackb(ws.receive_bytes())["action_names"] == list(LAYOUTS["rt2"].names)
        for n, value in enumerate((100, 50)):
            asked = {
                "observation/image": wire(PICTURE // 100 * value),
                "observation/state": wire(np.array([1.0, n])),
                "prompt": "go",
            }
            ws.send_bytes(msgpack.packb(asked))
            answer = msgpack.unpackb(ws.receive_bytes())
            actions = array(answer["actions"])
            assert actions.shape == (3, 8) and actions.dtype == np.float32 and answer["policy_timing"]["infer_ms"] > 0
            assert ("prev_total_ms" in answer["server_timing"]) == (n == 1)
            assert (
                actions[0, 1] == 100 and actions[0, 0] == (100, 75)[n] and actions[0, 3] == (2, 3)[n]
            )  # the frame before is still known
        with http.websocket_connect("/") as other:
            other.receive_bytes()
            other.send_bytes(msgpack.packb({"image": wire(PICTURE), "state": wire(np.zeros(2)), "prompt": "go"}))
            assert array(msgpack.unpackb(other.receive_bytes())["actions"])[0, 0] == 100  # and not another connection's


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"prompt": "go"}, "no picture for camera 'top'; the observation has none"),
        ({"image": wire(PICTURE)}, "the instruction must be a text"),
        ({"image": wire(PICTURE.astype(np.float32)), "prompt": "go"}, "expected uint8"),
        ({"image": {b"__ndarray__": True, b"data": b"xx", b"dtype": "|O", b"shape": [1]}, "prompt": "go"}, "numbers only"),
        ({"image": {b"__ndarray__": True, b"data": b"xx", b"dtype": "<f4", b"shape": [9]}, "prompt": "go"}, "needs 36 bytes"),
        (
            {"a": wire(PICTURE), "b": wire(PICTURE), "prompt": "go"},
            "the observation has a, b; tell the server which it is: --camera top=NAME",
        ),
    ],
)
def test_openpi_errors_are_said_in_text(asked: dict[str, Any], said: str) -> None:
    with client() as http, http.websocket_connect("/") as ws:
        ws.receive_bytes()
        ws.send_bytes(msgpack.packb(asked))
        assert said in ws.receive_text()
        with pytest.raises(WebSocketDisconnect) as closed:
            ws.receive_bytes()
        assert closed.value.code == 1011


def encoded(value: np.ndarray) -> dict[str, Any]:
    return {"__numpy__": base64.b64encode(value.tobytes()).decode(), "dtype": value.dtype.str, "shape": value.shape}


def decoded(found: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(found["__numpy__"]), found["dtype"]).reshape(found["shape"])


def test_openvla_rest_answers_a_bare_array_in_both_encodings() -> None:
    body = {"image": encoded(PICTURE.transpose(2, 0, 1).copy()), "instruction": "open", "unnorm_key": "x"}
    with client() as http:
        actions = decoded(http.post("/act", json=body).json())
        assert actions.shape == (8,) and actions[0] == 100 and actions[2] == 4
        twice = http.post("/act", json={"encoded": json.dumps(body)})
        assert np.array_equal(decoded(json.loads(twice.json())), actions)
        assert http.get("/healthz").text == "OK" and http.get("/about").json()["robot"] == "arm"
        bad = http.post("/act", json={"instruction": "open"})
        assert bad.status_code == 400 and "no picture for camera" in bad.json()["error"]
        assert http.post("/act", content=b"{").status_code == 400
    with client(history=2) as http:
        assert "looks at 2 frames; use a protocol with a connection" in http.post("/act", json=body).json()["error"]


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv(KEY, "secret")
    yield "Api-Key secret"


def test_a_key_is_asked_for_where_one_is_set(key: str) -> None:
    with client() as http:
        assert http.post("/act", json={}).status_code == 401
        assert http.post("/act", json={}, headers={"Authorization": key}).status_code == 400
        with pytest.raises(WebSocketDisconnect), http.websocket_connect("/"):
            pass
        with http.websocket_connect("/", headers={"Authorization": key}) as ws:
            assert ws.receive_bytes()


def test_sizes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vla.serve.server.MAX_BYTES", 1000)
    with client() as http:
        assert http.post("/act", content=b"x" * 1001).status_code == 413
    engine = Engine(Sums())  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="up to 4096 px"):
        engine.infer({"top": np.zeros((5000, 2, 3), np.uint8)}, "go", Session())


def test_names_of_cameras_and_state_are_the_clients() -> None:
    engine = Engine(
        Sums(("top", "wrist"), state_dim=3), {"top": "observation/exterior_image_1_left"}, ["joint_position", "gripper_position"]
    )  # type: ignore[arg-type]
    seen = {
        "observation/exterior_image_1_left": PICTURE, "observation/wrist": PICTURE // 2, "observation/joint_position": np.array([1.0, 2.0]),
        "observation/gripper_position": np.array([0.5]),
    }  # fmt: skip
    actions, _ = engine.infer(seen, "go", None)
    assert actions[0, 0] == 100 and actions[0, 3] == 3.5
    with pytest.raises(RequestError, match="a state of 3 finite numbers, got 4"):
        engine.infer(seen | {"observation/gripper_position": np.zeros(2)}, "go", None)
    with pytest.raises(RequestError, match="no 'gripper_position' in the observation"):
        engine.infer({k: v for k, v in seen.items() if "gripper" not in k}, "go", None)
    with pytest.raises(ValueError, match="--camera left="):
        Engine(Sums(), {"left": "x"})  # type: ignore[arg-type]


@pytest.mark.parametrize("message", [b"", b"\xc1", msgpack.packb([1]), msgpack.packb({b"a": 1})])
def test_messages_that_are_none_are_refused(message: bytes) -> None:
    with pytest.raises(RequestError):
        unpack(message)
    with pytest.raises(RequestError):
        from_json(b"[1]")


@pytest.mark.slow
def test_the_command_serves_a_saved_policy(tmp_path: Any) -> None:
    """A process of its own, a real socket, and the actions that the policy gives here."""
    import socket
    import subprocess
    import sys
    import time

    import httpx
    from conftest import REPOSITORY

    from vla.policy import VLAPolicy

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    saved = REPOSITORY / "experiments" / "tabletop_seen" / "web_policy"
    code = "from vla.cli import main; main()"
    server = subprocess.Popen([sys.executable, "-c", code, "serve", str(saved), "--port", str(port)])
    try:
        for _ in range(120):
            try:
                if httpx.get(f"http://127.0.0.1:{port}/healthz").text == "OK":
                    break
            except httpx.ConnectError:
                time.sleep(0.5)
        image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        found = httpx.post(
            f"http://127.0.0.1:{port}/act", json={"image": encoded(image), "instruction": "pick the drum"}, timeout=60
        )
        here = VLAPolicy.load(saved).act(torch.from_numpy(image.transpose(2, 0, 1))[None, None, None], ["pick the drum"])[0, 0]
        assert np.allclose(decoded(found.json()), here, atol=1e-6)
    finally:
        server.terminate()
        server.wait(20)
