"""Sampling of plan and action tokens: temperature, top-k and seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from policies import make_policy, robot_batch

from vla.errors import ConfigError
from vla.inference.runner import PolicyRunner
from vla.models.decoders.sampling import Sampling, TokenSampler
from vla.policies.decoding import DecodingOptions, set_decoding

HOT = {"temperature": 2.0, "seed": 3}
PLANNED = {"name": "token", "plan": True, "plan_tokens": 3}


def predictions(head: dict[str, Any], rows: int = 4, **options: Any) -> tuple[np.ndarray, Any]:
    policy, batch = make_policy(head=head), robot_batch(8)
    return policy.predict(batch.images_BVTCHW[:rows], ["pick the banana"] * rows, **options)


def test_the_shares_of_drawn_tokens_are_the_softmax_of_the_scaled_logits() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    count = 4000
    for temperature, top_k in ((1.0, 0), (0.5, 0), (1.0, 2)):
        sampler = TokenSampler(Sampling(temperature, top_k), range(count))
        drawn = sampler(logits.expand(count, 4), range(count))
        shares = torch.bincount(drawn, minlength=4) / count
        expected = logits[0] / temperature
        if top_k:
            expected = expected.masked_fill(expected < expected.topk(top_k).values[-1], -torch.inf)
        assert torch.allclose(shares, expected.softmax(-1), atol=0.03)
    best = TokenSampler(Sampling(1.0, 1), range(5))(logits.expand(5, 4), range(5))
    assert best.tolist() == [3] * 5


def test_temperature_0_and_top_k_1_are_greedy() -> None:
    greedy, plans = predictions(PLANNED)
    for sampling in ({"temperature": 0.0, "seed": 5}, {"temperature": 9.0, "top_k": 1}):
        actions, same = predictions(PLANNED | {"sampling": sampling})
        assert np.array_equal(actions, greedy) and same == plans


@pytest.mark.parametrize(
    "head", [PLANNED, {"name": "chain_of_thought", "action": {"name": "regression"}}]
)
def test_equal_seeds_give_equal_plans_and_actions(head: dict[str, Any]) -> None:
    first, plans = predictions(head | {"sampling": HOT}, row_seeds=[1, 2, 3, 4])
    again, same = predictions(head | {"sampling": HOT}, row_seeds=[1, 2, 3, 4])
    assert np.array_equal(first, again) and plans == same and len(set(plans)) > 1
    _, other = predictions(head | {"sampling": HOT | {"seed": 4}}, row_seeds=[1, 2, 3, 4])
    assert other != plans
    # A row's tokens depend on its own seed, not on the rows beside it.
    few, few_plans = predictions(head | {"sampling": HOT}, rows=2, row_seeds=[1, 2])
    assert few_plans == plans[:2] and np.allclose(few, first[:2], atol=1e-5)


def test_sampled_actions_are_legal() -> None:
    space = make_policy().spec.action_space
    actions, _ = predictions({"name": "token", "sampling": {"temperature": 50.0}}, rows=8)
    assert (actions >= np.array(space.low)).all() and (actions <= np.array(space.high)).all()
    binary = [space.names.index(n) for n in space.binary]
    assert set(np.unique(actions[..., binary])) <= {0.0, 1.0}
    assert len(np.unique(actions[:, 0, 1])) > 1


def test_an_episode_has_the_same_tokens_whatever_runs_beside_it() -> None:
    policy, batch = make_policy(head={"name": "token", "sampling": HOT}).robot(), robot_batch(2)
    images = [i[0, 0].permute(1, 2, 0).numpy() for i in batch.images_BVTCHW]
    seen = [{"images": {"top": image}, "instruction": "pick the banana"} for image in images]
    alone, both = PolicyRunner(policy), PolicyRunner(policy)
    steps = [alone.act([1], [seen[1]])[0] for _ in range(3)]
    beside = [both.act([0, 1], seen)[1] for _ in range(3)]
    assert np.allclose(steps, beside)
    assert not np.allclose(steps[0], steps[1])  # the same image later has other tokens
    alone.reset(1)
    assert np.allclose(alone.act([1], [seen[1]])[0], steps[0])


def test_sampling_can_be_changed_after_loading() -> None:
    policy, batch = make_policy(), robot_batch(3)
    arguments = batch.images_BVTCHW, ["pick the banana"] * 3
    greedy, _ = policy.predict(*arguments)
    assert not policy.samples()
    set_decoding(policy.robot(), DecodingOptions(temperature=3.0, seed=1))
    assert policy.samples() and not np.allclose(policy.predict(*arguments)[0], greedy)
    set_decoding(policy.robot(), DecodingOptions(temperature=0.0))
    assert np.array_equal(policy.predict(*arguments)[0], greedy)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature=-1.0: expected a number of at least 0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": 1.0, "top_k": -1}, "top_k=-1: expected at least 0"),
        ({"top_k": 5}, "top_k=5: temperature 0 is greedy decoding; set temperature"),
        ({"seed": 5}, "seed: temperature 0 is greedy"),
    ],
)
def test_invalid_sampling_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        set_decoding(make_policy().robot(), DecodingOptions(**options))
    if "seed" not in options:
        with pytest.raises(ConfigError, match=r"head\.sampling.*" + message):
            make_policy(head={"name": "token", "sampling": options})
