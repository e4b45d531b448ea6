"""The robot's measured state as an input: it reaches the policy in training, on recorded data and in closed loop, or is refused by name."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_POLICY

from vla.config import ConfigError, build, check
from vla.contract import Contract
from vla.data.manifest import load_manifest
from vla.evaluate import PolicyActor, evaluate, rollouts
from vla.offline import offline
from vla.policy import VLAPolicy
from vla.sim.layouts import LAYOUTS
from vla.sim.tabletop import Tabletop
from vla.train import RunConfig, train

pytestmark = pytest.mark.filterwarnings("default")  # Lightning and tensorboard warn about their own affairs


def test_a_policy_with_a_state_trains_acts_and_reloads(tiny_run: dict[str, Any], tiny_data: dict[str, str]) -> None:
    blind = train(check(tiny_run | {"train": tiny_run["train"] | {"steps": 1}}, RunConfig, ""), progress=False)
    tiny_run |= {
        "policy": TINY_POLICY | {"state": True, "head": {"name": "regression"}},
        "init": str(blind),
        "run": str(blind) + "_two",
    }
    tiny_run["data"] = tiny_run["data"] | {"window": {"history": 2}}
    policy = VLAPolicy.load(train(check(tiny_run, RunConfig, ""), progress=False))
    assert policy.contract.state_dim == 7 and policy.states[0].project.weight.shape[1] == 14
    images, told = torch.zeros((2, 1, 2, 3, 32, 32), dtype=torch.uint8), ["pick the apple"] * 2
    low = torch.tensor(load_manifest(tiny_data["robot"])["statistics"]["state"]["q01"])
    here, there = low.expand(2, 2, 7), low.expand(2, 2, 7) + torch.tensor([0.1, 0.1, 0, 0, 0, 0, 0])
    actions = policy.act(images, told, state_BTP=here)
    assert not np.array_equal(actions, policy.act(images, told, state_BTP=there))
    with pytest.raises(ValueError, match=r"looks at the robot's state: give \(rows, 2, 7\), got none"):
        policy.act(images, told)
    with pytest.raises(ValueError, match=r"got one of shape \(2, 2, 6\)"):
        policy.act(images, told, state_BTP=here[..., :6])
    assert offline(policy.robot(), tiny_data["robot"], progress=False).frames > 0
    results, _ = evaluate(policy, "vla/Tabletop-v0", {"size": 32}, 1, ["pick"], progress=False)
    assert len(results) == 1


def test_quantiles_become_one_and_far_values_are_held() -> None:
    from vla.proprioception import StateEncoder

    statistics = {k: [v, 0.5] for k, v in {"min": -2.0, "q01": -1.0, "mean": 0.0, "q99": 3.0, "max": 9.0}.items()}
    encoder = StateEncoder(statistics, 1, 2)
    torch.nn.init.eye_(encoder.project.weight)
    torch.nn.init.zeros_(encoder.project.bias)
    out = encoder(torch.tensor([[[-1.0, 0.5]], [[3.0, 0.5]], [[1.0, 0.7]], [[500.0, 0.5]]]))
    assert torch.allclose(
        out[:, 0], torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 0.2], [1.5, 0.0]])
    )  # a dead number is never blown up


class Feels:
    """Keeps the states it is given."""

    def __init__(self) -> None:
        self.contract = Contract(LAYOUTS["rt2"], ("top",), (32, 32), history=3, state_dim=7)
        self.seen: list[torch.Tensor] = []

    def holds_plan(self) -> bool:
        return False

    def predict(self, images: Any, instructions: Any, state_BTP: torch.Tensor) -> tuple[np.ndarray, list[str]]:
        self.seen.append(state_BTP[0])
        return np.full((len(instructions), 1, 8), 0.01, np.float32), [""] * len(instructions)


def test_states_of_the_past_come_in_order_and_begin_with_the_first() -> None:
    policy = Feels()
    rollouts(PolicyActor(policy), lambda: Tabletop(size=32, step_limit=5), [0, 1], [None, None], batch=1, progress=False)
    assert len(policy.seen) == 10
    for first in (0, 5):  # the second episode knows nothing of the first
        own = policy.seen[first : first + 5]
        assert torch.equal(own[0][0], own[0][2])
        for before, after in pairwise(own):
            assert torch.equal(before[1:], after[:2]) and not torch.equal(after[1], after[2])


def test_states_that_cannot_be_had_are_refused(tiny_run: dict[str, Any]) -> None:
    from test_zoo import WORDS, contract

    from vla.decoders.tokenizer import train_tokenizer

    with pytest.raises(ConfigError, match=r"policy\.state=true: the robot data has no state"):
        build("policy", TINY_POLICY | {"state": True}, contracts={"robot": contract()}, tokenizer=train_tokenizer(WORDS, 800))
    policy = Feels()
    policy.contract = replace(policy.contract, state_dim=6)
    with pytest.raises(ValueError, match=r"looks at a state of 6 numbers; the environment gives \(7,\)"):
        rollouts(PolicyActor(policy), lambda: Tabletop(size=32, step_limit=5), [0], [None], progress=False)
