"""Actions that are not finite or out of bounds are refused; so are absurd specs of robots."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
from fake_policies import EIGHT, SummingPolicy
from policies import HEADS, make_policy
from protocol_clients import IMAGE, decoded, encoded, service_of, wire
from rt1_policy import make_rt1
from starlette.testclient import TestClient

from vla.errors import ActionError, ConfigError
from vla.inference.runner import PolicyRunner
from vla.policies.spec import RobotSpec
from vla.serve.server import all_protocols, make_app
from vla.types import ActionSpace

# Starlette's test client emits deprecation warnings
pytestmark = pytest.mark.filterwarnings("default")

OBSERVATION = {
    "images": {"top": np.zeros((32, 32, 3), np.uint8)},
    "instruction": "pick up the red apple",
}
EIGHT_PX = {"images": {"top": np.zeros((8, 8, 3), np.uint8)}, "instruction": "go"}


class FixedPolicy(SummingPolicy):
    """Every action has the same value in all dimensions."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def predict(self, *given: Any, **options: Any) -> tuple[np.ndarray, list[str]]:
        chunks, plans = super().predict(*given, **options)
        return np.full_like(chunks, self.value), plans


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", HEADS)
def test_numbers_that_are_not_finite_become_an_error_in_every_head(name: str, value: float) -> None:
    head = HEADS[name][0]
    policy = make_policy(head)
    parts = policy.vision if head["name"] == "token" else policy.heads
    with torch.no_grad():
        for parameter in parts.parameters():
            parameter.fill_(value)
    with pytest.raises(ActionError, match="not finite"):
        PolicyRunner(policy.robot()).act([0], [OBSERVATION])


def test_a_mixture_without_a_best_mode_and_an_rt1_without_a_best_bin_are_errors() -> None:
    policy = make_policy({"name": "mixture", "modes": 3})
    with torch.no_grad():
        policy.heads[0].out.bias[:3] = math.nan  # the weights of the modes
    with pytest.raises(ActionError):
        policy.act(OBSERVATION["images"], "go")
    rt1 = make_rt1().eval()
    with torch.no_grad():
        rt1.out.weight.fill_(math.nan)
    with pytest.raises(ActionError):
        PolicyRunner(rt1.robot()).act([0], [OBSERVATION])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1000.5, -2000.0])
def test_actions_outside_the_bounds_are_never_sent(value: float) -> None:
    body = {"image": encoded(IMAGE), "instruction": "go"}
    with TestClient(make_app(service_of(FixedPolicy(value)), all_protocols())) as http:
        reply = http.post("/act", json=body)
        assert reply.status_code == 422 and "not executed" in reply.json()["error"]
        with http.websocket_connect("/") as ws:
            ws.receive_bytes()
            ws.send_bytes(msgpack.packb({"image": wire(IMAGE), "prompt": "go"}))
            assert "not executed" in ws.receive_text()
    with TestClient(make_app(service_of(FixedPolicy(1000)), all_protocols())) as http:
        assert (decoded(http.post("/act", json=body).json()) == 1000).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_runner_refuses_numbers_of_any_policy_that_are_not_finite(value: float) -> None:
    runner = PolicyRunner(FixedPolicy(value))  # type: ignore[arg-type]
    with pytest.raises(ActionError, match="not executed"):
        runner.act([0], [EIGHT_PX])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("action_space.low", [math.nan] * 8),
        ("action_space.high", [1e300] * 8),
        ("action_space.high", [math.nan] * 8),
        ("action_space.low", [5000.0] * 8),
        ("action_space.rate_hz", math.nan),
        ("action_space.rate_hz", 0.0),
        ("action_space.rate_hz", math.inf),
        ("horizon", 0),
        ("horizon", 10**9),
        ("horizon", math.nan),
        ("history", -1),
        ("history", 10**6),
        ("state_dim", 10**9),
        ("image_size", [10**6, 10]),
        ("image_size", [-1, 10]),
        ("image_size", [math.nan, 10]),
        ("cameras", [f"camera{n}" for n in range(1000)]),
        ("execution.temporal_ensemble", math.nan),
        ("statistics", {"actions": {"mean": [math.nan] * 8}}),
    ],
)
def test_absurd_specs_are_refused_with_the_path_of_the_field(field: str, value: Any) -> None:
    data = RobotSpec(EIGHT, ("top",), (8, 8), horizon=2).to_dict()
    *parents, name = field.split(".")
    inner = data
    for parent in parents:
        inner = inner[parent]
    inner[name] = value
    with pytest.raises(ConfigError) as refused:
        RobotSpec.from_dict(data, "robots.arm")
    assert str(refused.value).startswith(f"robots.arm.{(parents or [name])[0]}")


def test_the_images_of_one_observation_are_limited_together() -> None:
    spec = RobotSpec(EIGHT, tuple("abcdefgh"), (4096, 4096), history=200)
    assert "expected at most" in dict(spec.problems())["image_size"]


def test_infinite_bounds_mean_no_bounds() -> None:
    space = ActionSpace(("x",), ("m",), (-math.inf,), (math.inf,))
    data = RobotSpec(space, (), (0, 0)).to_dict()
    assert RobotSpec.from_dict(data).action_space == space
