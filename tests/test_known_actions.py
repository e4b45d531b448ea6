"""A new chunk continues the actions that are executed while it is predicted."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from policies import build_policy, spec
from tokenizer_kinds import tokenizer_of

from vla.benchmarks.tabletop.layouts import LAYOUTS
from vla.inference.engine import speed_up
from vla.inference.runner import PolicyRunner
from vla.models.actions.normalise import Normaliser
from vla.models.decoders.drafts import Draft
from vla.models.heads.base import KnownActions
from vla.models.heads.guidance import guidance_weights
from vla.policies.execution import Execution
from vla.policies.spec import RobotSpec
from vla.policies.units import known_actions
from vla.policies.vla import VLAPolicy
from vla.types import ActionSpace, Leftover

HORIZON = 6
IMAGES = torch.arange(2 * 3 * 32 * 32).remainder(256).reshape(2, 1, 1, 3, 32, 32).to(torch.uint8)
TEXTS = ["pick the apple", "where is the banana"]
FLOW = {"name": "flow", "steps": 10, "width": 32}


def policy_of(head: dict[str, Any], tokenizer: Any = None) -> VLAPolicy:
    from conftest import TINY_POLICY

    config = {k: v for k, v in TINY_POLICY.items() if k != "name"} | {"head": head}
    return build_policy(config, tokenizer, specs={"robot": spec(HORIZON)}, chunks=None).eval()


def random_actions(count: int, seed: int = 0) -> np.ndarray:
    """(count, A) actions in the middle of their range; binary ones at a bound."""
    space, rng = LAYOUTS["rt2"], np.random.default_rng(seed)
    low, high = np.array(space.low), np.array(space.high)
    found = low + rng.uniform(0.3, 0.7, (count, space.dim)) * (high - low)
    binary = np.array([name in space.binary for name in space.names])
    return np.where(binary, np.where(found > (low + high) / 2, high, low), found).astype(np.float32)


@pytest.mark.parametrize(
    ("head", "tokenizer"),
    [
        ({"name": "token"}, None),
        ({"name": "token", "codec": {"name": "quantile"}}, None),
        ({"name": "token", "plan": True, "plan_tokens": 3}, None),
        ({"name": "token", "plan": "auto", "plan_tokens": 3}, None),
        ({"name": "token"}, "digits"),
    ],
    ids=["one token", "quantile", "plan", "auto", "several tokens"],
)
def test_token_heads_write_the_frozen_actions_exactly(head: dict[str, Any], tokenizer: Any) -> None:
    policy = policy_of(head, tokenizer and tokenizer_of(tokenizer))
    assert policy.uses_known_actions("robot")
    before, plans = policy.predict(IMAGES, TEXTS)
    # a chunk of another observation, from its second step on
    executed = policy.predict(255 - IMAGES, TEXTS[::-1])[0][0, 1:]
    for frozen in (1, 3):
        leftovers = [Leftover(executed, frozen), None]
        chunks, again = policy.predict(IMAGES, TEXTS, leftovers=leftovers)
        assert np.array_equal(chunks[0, :frozen], executed[:frozen])
        assert np.array_equal(chunks[1], before[1]) and again == plans


def test_fast_decoding_writes_the_same_chunk_after_frozen_actions() -> None:
    policy = policy_of({"name": "token", "plan": True, "plan_tokens": 3})
    leftovers, one = [Leftover(random_actions(4), 3)], (IMAGES[:1], TEXTS[:1])
    plain = policy.predict(*one, leftovers=leftovers)
    assert speed_up(policy.robot())
    drafts = [Draft()]
    for _ in range(2):  # without and with the draft of the call before
        chunks, plans = policy.predict(*one, leftovers=leftovers, drafts=drafts)
        assert np.array_equal(chunks, plain[0]) and plans == plain[1]


def test_a_policy_that_is_forced_to_its_own_actions_predicts_the_same_chunk() -> None:
    policy = policy_of({"name": "token"})
    forced = [Leftover(random_actions(2), 2)] * 2  # binary dimensions have one of two tokens
    own, _ = policy.predict(IMAGES, TEXTS, leftovers=forced)
    own, _ = policy.predict(IMAGES, TEXTS, leftovers=[Leftover(c, 5) for c in own])
    same, _ = policy.predict(IMAGES, TEXTS, leftovers=[Leftover(c, 5) for c in own])
    assert np.array_equal(same, own)


def test_plan_hysteresis_keeps_the_frozen_actions() -> None:
    head = {"name": "token", "plan": True, "plan_tokens": 3, "plan_switch_margin": 1e9}
    policy, executed = policy_of(head), random_actions(3)
    chosen = policy.predict(IMAGES, TEXTS, leftovers=[Leftover(executed, 3)] * 2)[0][:, :3]
    chunks, plans = policy.predict(
        IMAGES, TEXTS, previous_plans=["apple"] * 2, leftovers=[Leftover(executed, 3)] * 2
    )
    assert plans == ["apple"] * 2 and np.array_equal(chunks[:, :3], chosen)


@pytest.mark.parametrize(
    "head", [FLOW, {"name": "chain_of_thought", "action": FLOW, "plan_tokens": 3}], ids=["", "plan"]
)
def test_flow_is_guided_to_the_frozen_actions(head: dict[str, Any]) -> None:
    policy = policy_of(head)
    before, _ = policy.predict(IMAGES, TEXTS)
    leftover = random_actions(5)
    chunks, _ = policy.predict(IMAGES, TEXTS, leftovers=[Leftover(leftover, 3), None])
    space = LAYOUTS["rt2"]
    half = (np.array(space.high) - np.array(space.low)) / 2
    error = np.abs((chunks[0, :3] - leftover[:3]) / half)
    assert error.max() < 0.1 and error.mean() < 0.03
    assert np.abs((before[0, :3] - leftover[:3]) / half).max() > 0.3
    # the steps after them come nearer to the old predictions, and those without any are free
    numbers = [k for k, name in enumerate(space.names) if name not in space.binary]
    apart, was = (np.abs((c[0, 3:5] - leftover[3:]) / half)[:, numbers] for c in (chunks, before))
    assert apart[0].mean() < was[0].mean()
    # a row without known actions is the unguided sample
    assert np.allclose(chunks[1], before[1], atol=1e-5)
    assert np.allclose(policy.predict(IMAGES, TEXTS, leftovers=[None] * 2)[0], before, atol=1e-6)


def test_guidance_works_in_inference_mode() -> None:
    policy = policy_of(FLOW)
    leftovers = [Leftover(random_actions(3), 2)] * 2
    plain = policy.predict(IMAGES, TEXTS, leftovers=leftovers)[0]
    with torch.inference_mode():
        assert np.allclose(policy.predict(IMAGES, TEXTS, leftovers=leftovers)[0], plain, atol=1e-6)
    assert all(p.grad is None for p in policy.parameters())


@given(count=st.integers(0, 8), frozen=st.integers(0, 8))
def test_guidance_weights_fall_from_the_frozen_steps_to_the_last_known_one(
    count: int, frozen: int
) -> None:
    frozen = min(frozen, count)
    (weights,) = guidance_weights(KnownActions(torch.zeros(1, 8, 2), [frozen], [count])).tolist()
    if not frozen:
        assert weights == [0.0] * 8
        return
    assert weights[:frozen] == [1.0] * frozen and weights[count:] == [0.0] * (8 - count)
    known = weights[frozen - 1 : count]
    assert all(0 < b < a for a, b in itertools.pairwise(known))


@pytest.mark.parametrize(
    "head", [{"name": "regression"}, {"name": "mixture"}, {"name": "classification"}]
)
def test_other_heads_are_not_conditioned(
    head: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    policy = policy_of(head)
    assert not policy.uses_known_actions("robot")
    runner = PolicyRunner(policy.robot(), Execution(mode="delay_aware", delay=2))
    assert not runner.conditions and "chunks are joined as they are" in caplog.text


def test_relative_actions_are_differences_to_the_new_state() -> None:
    space = ActionSpace(("x", "y"), ("m", "m"), (-1.0, -1.0), (1.0, 1.0))
    robot = RobotSpec(space, (), (0, 0), horizon=3, state_dim=2, relative=(1, -1))
    policy = SimpleNamespace(specs={"r": robot}, normaliser=lambda _: Normaliser(space, None))
    state = torch.tensor([[[0.0, 0.25]], [[0.0, 0.0]]])
    left = Leftover(np.array([[0.5, 0.5], [0.75, -0.5]], np.float32), 1)
    known = known_actions(policy, "r", [left, None], state)
    assert known.normalized_BHA[0].tolist() == [[0.25, 0.5], [0.5, -0.5], [0.0, 0.0]]
    assert known.normalized_BHA[1].abs().sum() == 0
    assert (known.frozen_B, known.count_B) == ([1, 0], [2, 0])
