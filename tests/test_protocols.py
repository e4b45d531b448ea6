"""The wire protocols give the policy's own actions and refuse invalid requests."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
import msgpack
from fake_policies import EIGHT
from protocol_clients import IMAGE, array, ask, decoded, encoded, http_client, wire

from vla.serve.protocols.openpi import unpack
from vla.serve.protocols.openvla import from_json
from vla.serve.service import RequestError

# Starlette's test client emits deprecation warnings
pytestmark = pytest.mark.filterwarnings("default")


def test_openpi_describes_the_policy_and_keeps_a_history_for_each_connection() -> None:
    with http_client(history=2, horizon=3, state_dim=2) as http, http.websocket_connect("/") as ws:
        assert msgpack.unpackb(ws.receive_bytes())["action_names"] == list(EIGHT.names)
        for n, value in enumerate((100, 50)):
            fields = {
                "observation/image": wire(IMAGE // 100 * value),
                "observation/state": wire(np.array([1.0, n])),
            }
            answer = ask(ws, **fields, prompt="go")
            actions = array(answer["actions"])
            assert actions.shape == (3, 8) and actions.dtype == np.float32
            timing = answer["server_timing"]
            assert timing["infer_ms"] >= answer["policy_timing"]["infer_ms"] > 0
            assert ("prev_total_ms" in timing) == (n == 1)
            # brightness over two frames, of the oldest frame, and the sum of two states
            assert actions[0, 0] == (100, 75)[n] and actions[0, 1] == 100
            assert actions[0, 3] == (2, 3)[n]
        with http.websocket_connect("/") as other:
            other.receive_bytes()
            answer = ask(other, image=wire(IMAGE // 2), state=wire(np.zeros(2)), prompt="go")
            assert array(answer["actions"])[0, 0] == 50


def test_openpi_gives_the_previous_plan_until_the_instruction_changes() -> None:
    with http_client(plans=True) as http, http.websocket_connect("/") as ws:
        ws.receive_bytes()
        found = [
            array(ask(ws, image=wire(IMAGE), prompt=text)["actions"])[0, 4]
            for text in ("pick", "pick", "pick", "push", "push")
        ]
        assert found == [0, 1, 2, 0, 1]
    with http_client(plans=True) as http:
        body = {"image": encoded(IMAGE), "instruction": "push"}
        for _ in range(2):  # requests without a connection are independent
            assert decoded(http.post("/act", json=body).json())[4] == 0


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"prompt": "go"}, "no image for camera 'top'; the policy has top, the request has none"),
        ({"image": wire(IMAGE)}, "the instruction must be a text"),
        ({"image": wire(IMAGE.astype(np.int16) * 9), "prompt": "go"}, "an (H, W, 3) uint8 image"),
        (
            {"image": wire(IMAGE) | {b"dtype": "|O"}, "prompt": "go"},
            "numbers only",
        ),
        (
            {"image": {b"__ndarray__": True, b"data": b"xx", b"dtype": "<f4", b"shape": [9]}},
            "needs 36 bytes",
        ),
        (
            {"a": wire(IMAGE), "b": wire(IMAGE), "prompt": "go"},
            "the request has a, b; start the server with --camera top=NAME",
        ),
    ],
)
def test_openpi_sends_errors_as_text_and_keeps_the_connection(
    request_: dict[str, Any], message: str
) -> None:
    with http_client() as http, http.websocket_connect("/") as ws:
        ws.receive_bytes()
        ws.send_bytes(msgpack.packb(request_))
        assert message in ws.receive_text()
        assert array(ask(ws, image=wire(IMAGE), prompt="go")["actions"])[0, 0] == 100


def test_openpi_refuses_a_text_message() -> None:
    with http_client() as http, http.websocket_connect("/") as ws:
        ws.receive_bytes()
        ws.send_text("{}")
        assert "expected a binary msgpack message" in ws.receive_text()


def test_openvla_replies_with_an_array_in_both_encodings() -> None:
    image = encoded(IMAGE.transpose(2, 0, 1).copy())
    body = {"image": image, "instruction": "open", "unnorm_key": "x"}
    with http_client() as http:
        actions = decoded(http.post("/act", json=body).json())
        assert actions.shape == (8,) and actions[0] == 100 and actions[2] == 4
        string = http.post("/act", json={"encoded": json.dumps(body)})
        assert np.array_equal(decoded(json.loads(string.json())), actions)
        assert http.get("/healthz").text == "OK" and http.get("/about").json()["robot"] == "arm"
        bad = http.post("/act", json={"instruction": "open"})
        assert bad.status_code == 400 and "no image for camera" in bad.json()["error"]
        assert http.post("/act", content=b"{").status_code == 400
    with http_client(history=2) as http:
        error = http.post("/act", json=body).json()["error"]
        assert error == "this policy needs frame history (2 frames); use the websocket API"


def test_openvla_replies_with_one_action_unless_the_chunk_is_asked_for() -> None:
    body = {"image": encoded(IMAGE), "instruction": "open"}
    with http_client(horizon=3) as http:
        for url, changes, shape in (
            ("/act", {}, [8]),
            ("/act", {"chunk": False}, [8]),
            ("/act?chunk=true", {}, [3, 8]),
            ("/act", {"chunk": True}, [3, 8]),
        ):
            assert http.post(url, json=body | changes).json()["shape"] == shape
        for chunk in ("x", 1, None, [True]):
            assert http.post("/act", json=body | {"chunk": chunk}).status_code == 400
        # OpenVLA-OFT: the request is the observation, the reply a list of actions
        seen = {"full_image": encoded(IMAGE), "state": [0, 1], "instruction": "open"}
        actions = http.post("/act", json=seen).json()
        assert [decoded(action).shape for action in actions] == [(8,)] * 3
        assert decoded(actions[0])[0] == 100


def test_the_root_names_the_policy_and_the_endpoints() -> None:
    with http_client() as http:
        page = http.get("/").json()
        assert page["robot"] == "arm" and "policy" in page
        assert "http://testserver/act (OpenVLA)" in page["endpoints"]
        assert "ws://testserver/ (openpi)" in page["endpoints"]
        assert "http://testserver/about" in page["endpoints"]
        with http.websocket_connect("/") as ws:  # the same path
            assert ws.receive_bytes()


def test_images_of_any_clear_type_give_the_same_actions() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    others = (
        (image / 255).astype(np.float32),
        image.transpose(2, 0, 1).copy(),
        np.concatenate([image, image[..., :1]], -1),
        image[None],
        image.astype(np.int64),
        image.astype(">f8"),
    )
    with http_client() as http:
        bodies = [{"image": encoded(i), "instruction": "go"} for i in (image, *others)]
        bodies.append({"image": image.tolist(), "instruction": "go"})
        found = [decoded(http.post("/act", json=body).json()) for body in bodies]
        assert all(np.array_equal(actions, found[0]) for actions in found)
        ragged = {"image": [[1, 2], [3]], "instruction": "go"}
        assert http.post("/act", json=ragged).status_code == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"image": {"shape": [2**20, 2**20, 3], "dtype": "|u1", "__numpy__": ""}},
        {"image": {"shape": [0, 10**30], "dtype": "|u1", "__numpy__": ""}},
        {"image": {"shape": [1] * 40, "dtype": "|u1", "__numpy__": "AA=="}},
        {"image": {"shape": [2, 2, 3], "dtype": "|S1000000000", "__numpy__": "AA=="}},
        {"image": {"shape": "x", "dtype": "|u1", "__numpy__": "AA=="}},
    ],
)
def test_shapes_of_arrays_are_checked_before_memory_is_used(fields: dict[str, Any]) -> None:
    with http_client() as http:
        reply = http.post("/act", json=fields | {"instruction": "go"})
        assert reply.status_code == 400 and "array" in reply.json()["error"]


def test_deeply_nested_requests_and_giant_scalars_are_refused() -> None:
    with http_client() as http:
        for body in (b"[" * 100_000, b'{"a":' * 500 + b"1" + b"}" * 500):
            assert http.post("/act", content=body).status_code == 400
    giant = {b"__npgeneric__": True, b"data": b"x", b"dtype": "S2000000000"}
    with pytest.raises(RequestError, match="numbers only"):
        unpack(msgpack.packb({"a": giant}))


@pytest.mark.parametrize("message", [b"", b"\xc1", msgpack.packb([1]), msgpack.packb({b"a": 1})])
def test_openpi_refuses_invalid_messages(message: bytes) -> None:
    with pytest.raises(RequestError):
        unpack(message)


@pytest.mark.parametrize("body", [b"[1]", b"", b'{"encoded": 3}', b'{"a": {"__numpy__": "?"}}'])
def test_openvla_refuses_invalid_bodies(body: bytes) -> None:
    with pytest.raises(RequestError):
        from_json(body)
