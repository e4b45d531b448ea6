"""The policy server: security, limits, and the mapping of requests to the policy's inputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

pytest.importorskip("starlette")
from conftest import REPOSITORY
from fake_policies import SummingPolicy
from protocol_clients import IMAGE, decoded, encoded, http_client, service_of
from readme_examples import load_example
from server_processes import served
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from vla.config.registry import _REGISTRY
from vla.policies.checkpoint import load_policy
from vla.serve.access import KEY
from vla.serve.limits import Limits
from vla.serve.server import all_protocols, make_app
from vla.serve.service import RequestError

# Starlette's test client emits deprecation warnings
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv(KEY, "secret")
    yield "Api-Key secret"


def test_the_api_key_is_required_if_it_is_set(key: str) -> None:
    with http_client() as http:
        assert http.post("/act", json={}).status_code == 401
        assert http.post("/act", json={}, headers={"Authorization": "x"}).status_code == 401
        assert http.post("/act", json={}, headers={"Authorization": key}).status_code == 400
        assert {http.get(path).status_code for path in ("/", "/about", "/healthz")} == {200}
        with pytest.raises(WebSocketDisconnect), http.websocket_connect("/"):
            pass
        with http.websocket_connect("/", headers={"Authorization": key}) as ws:
            assert ws.receive_bytes()


def test_bodies_and_images_are_limited_in_size() -> None:
    app = make_app(service_of(SummingPolicy()), all_protocols(), limits=Limits(0.01))
    with TestClient(app) as http:
        reply = http.post("/act", content=b"x" * 10_486)
        assert reply.status_code == 413 and "larger than 10485 bytes" in reply.json()["error"]
        assert http.post("/act", content=b"x" * 10_485).status_code == 400
    with pytest.raises(RequestError, match="at most 4096 pixels"):
        service_of(SummingPolicy()).observation(
            {"top": np.zeros((5000, 2, 3), np.uint8)}, "go", None
        )


def test_images_are_resized_to_the_policys_size() -> None:
    image = np.random.default_rng(0).integers(0, 256, (24, 16, 3), np.uint8)
    service = service_of(SummingPolicy())
    images = service.observation({"top": image}, "go", None)["images"]
    assert images["top"].shape == (8, 8, 3) and images["top"].dtype == np.uint8
    assert abs(float(images["top"].mean()) - float(image.mean())) < 5
    same = service.observation({"top": IMAGE}, "go", None)["images"]["top"]
    assert np.array_equal(same, IMAGE)


def test_cameras_and_state_are_found_by_the_clients_names() -> None:
    left, joints, gripper = (
        "observation/exterior_image_1_left",
        "observation/joint_position",
        "observation/gripper_position",
    )
    service = service_of(
        SummingPolicy(("top", "wrist"), state_dim=3),
        {"top": left},
        ["joint_position", "gripper_position"],
    )
    request = {
        left: IMAGE,
        "observation/wrist": IMAGE // 2,
        joints: np.array([1.0, 2.0]),
        gripper: np.array([0.5]),
    }
    observation = service.observation(request, "go", None)
    assert observation["images"]["top"].max() == 100 and observation["images"]["wrist"].max() == 50
    assert observation["state"].tolist() == [1.0, 2.0, 0.5]
    for value, message in (
        (np.zeros(2), "a state of 3 finite numbers, got 4"),
        (np.array([np.nan]), "must be finite numbers; it has NaN"),
        ("x", "must be numbers"),
    ):
        with pytest.raises(RequestError, match=message):
            service.observation(request | {gripper: value}, "go", None)
    del request[gripper]
    with pytest.raises(RequestError, match="no 'gripper_position' for the state"):
        service.observation(request, "go", None)
    with pytest.raises(ValueError, match=r"--camera left=.*no such camera; choices: top"):
        service_of(SummingPolicy(), {"left": "x"})


def test_the_protocol_of_the_readme_works(tmp_path: Path) -> None:
    """The example of vla/README.md, as it stands there."""
    try:
        load_example("plain_json", tmp_path)
        protocol = _REGISTRY["protocol"]["plain_json"]()
    finally:
        _REGISTRY["protocol"].pop("plain_json", None)
    app = make_app(service_of(SummingPolicy(state_dim=2)), [protocol])
    request = {"images": {"top": IMAGE.tolist()}, "state": [1, 2], "instruction": "open"}
    with TestClient(app) as http:
        actions = np.array(http.post("/v1/actions", json=request).json()["actions"])
        assert actions.shape == (1, 8) and actions[0, [0, 2, 3]].tolist() == [100, 4, 3]
        missing = http.post("/v1/actions", json=request | {"images": {}})
        assert missing.status_code == 400 and "no image for camera" in missing.json()["error"]


@pytest.mark.slow
def test_the_command_serves_a_saved_policy() -> None:
    """A separate process and a real socket give the same actions as the policy in this process."""
    saved = REPOSITORY / "experiments" / "tabletop_seen" / "policy"
    with served(saved) as port:
        image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        found = httpx.post(
            f"http://127.0.0.1:{port}/act",
            json={"image": encoded(image), "instruction": "pick the drum"},
            timeout=60,
        )
        here = load_policy(saved).predict(
            torch.from_numpy(image.transpose(2, 0, 1))[None, None, None], ["pick the drum"]
        )[0][0, 0]
        assert np.allclose(decoded(found.json()), here, atol=1e-6)
