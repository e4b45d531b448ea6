"""The robot's measured state as a policy input: training, recorded data and rollouts."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_POLICY
from fake_policies import RecordingPolicy
from policies import WORDS, spec

from vla.benchmarks.tabletop.layouts import LAYOUTS
from vla.config import build, check
from vla.data.manifest import load_manifest
from vla.errors import ConfigError
from vla.evaluation.offline import offline
from vla.evaluation.rollout import evaluate, open_benchmark
from vla.models.decoders.tokenizer import train_tokenizer
from vla.models.state_encoder import StateEncoder
from vla.policies.checkpoint import load_policy
from vla.training.run import RunConfig, train

# Lightning and TensorBoard emit warnings that have no bearing on this package
pytestmark = pytest.mark.filterwarnings("default")


def test_a_policy_with_a_state_trains_acts_and_reloads(
    tiny_run: dict[str, Any], tiny_data: dict[str, str]
) -> None:
    one_step = tiny_run | {"train": tiny_run["train"] | {"steps": 1}}
    stateless = train(check(one_step, RunConfig, ""), progress=False)
    tiny_run |= {
        "policy": TINY_POLICY | {"state": True, "head": {"name": "regression"}},
        "init_from": str(stateless),
        "output_dir": str(stateless) + "_two",
    }
    tiny_run["data"] = tiny_run["data"] | {"window": {"history": 2}}
    policy = load_policy(train(check(tiny_run, RunConfig, ""), progress=False))
    assert policy.spec.state_dim == 7 and policy.states[0].project.weight.shape[1] == 14
    images, instructions = torch.zeros((2, 1, 2, 3, 32, 32), dtype=torch.uint8), ["pick"] * 2
    low = torch.tensor(load_manifest(tiny_data["robot"]).statistics["state"]["q01"])
    near = low.expand(2, 2, 7)
    far = near + torch.tensor([0.1, 0.1, 0, 0, 0, 0, 0])
    actions = policy.predict(images, instructions, state_BTP=near)[0]
    assert not np.array_equal(actions, policy.predict(images, instructions, state_BTP=far)[0])
    with pytest.raises(ValueError, match=r"state.*\(rows, 2, 7\).*none"):
        policy.predict(images, instructions)
    with pytest.raises(ValueError, match=r"state.*\(2, 2, 6\)"):
        policy.predict(images, instructions, state_BTP=near[..., :6])
    assert offline(policy.robot(), tiny_data["robot"], progress=False).frames > 0
    benchmark = open_benchmark({"name": "tabletop", "size": 32}, policy.spec.cameras)
    results, _ = evaluate(policy.robot(), benchmark, benchmark.select(["pick"]), 1, progress=False)
    assert len(results) == 1


def test_quantiles_become_plus_minus_one_and_outliers_are_clamped() -> None:
    values = {"min": -2.0, "q01": -1.0, "mean": 0.0, "q99": 3.0, "max": 9.0}
    encoder = StateEncoder({k: [v, 0.5] for k, v in values.items()}, 1, 2)
    torch.nn.init.eye_(encoder.project.weight)
    torch.nn.init.zeros_(encoder.project.bias)
    out = encoder(torch.tensor([[[-1.0, 0.5]], [[3.0, 0.5]], [[1.0, 0.7]], [[500.0, 0.5]]]))
    # the second dimension is constant in the statistics: it is centred, not scaled
    expected = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 0.2], [1.5, 0.0]])
    assert torch.allclose(out[:, 0], expected)


class MovingPolicy(RecordingPolicy):
    """A policy with a history of three states; it always moves, so that the state changes."""

    def __init__(self, state_dim: int) -> None:
        size = {"image_size": (32, 32), "history": 3}
        super().__init__(LAYOUTS["rt2"], state_dim=state_dim, **size)


def test_the_state_history_is_in_order_and_starts_with_the_first_state() -> None:
    policy = MovingPolicy(state_dim=7)
    benchmark = open_benchmark({"name": "tabletop", "size": 32, "max_steps": 5})
    evaluate(policy, benchmark, benchmark.select(["pick"]), 2, num_envs=1, progress=False)
    states = [call.state[0] for call in policy.calls if call.state is not None]
    assert len(states) == 10
    for first in (0, 5):  # the second episode starts with a fresh history
        episode = states[first : first + 5]
        assert torch.equal(episode[0][0], episode[0][2])
        for before, after in pairwise(episode):
            assert torch.equal(before[1:], after[:2]) and not torch.equal(after[1], after[2])


def test_data_and_benchmarks_without_the_needed_state_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"policy\.state"):
        build(
            "policy",
            TINY_POLICY | {"state": True},
            specs={"robot": spec()},
            tokenizer=train_tokenizer(WORDS, 800),
        )
    benchmark = open_benchmark({"name": "tabletop", "size": 32, "max_steps": 5})
    with pytest.raises(ValueError, match=r"state of 6 numbers; the observation has \(7,\)"):
        evaluate(MovingPolicy(6), benchmark, benchmark.select(["pick"]), 1, progress=False)
