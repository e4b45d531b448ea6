"""Choices and nested actions of gymnasium environments as vectors, and back."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from vla.benchmarks.gym_actions import VectorActions
from vla.models.actions.bins import UniformBins
from vla.models.actions.constrained_decoding import integer_symbols
from vla.models.actions.normalise import Normaliser

Box, Discrete = gym.spaces.Box, gym.spaces.Discrete
SPACES: dict[str, gym.Space[Any]] = {
    "choice": Discrete(7),
    "choice from 3": Discrete(4, start=3),
    "one choice": Discrete(1),
    "yes or no": Discrete(2),
    "choices": gym.spaces.MultiDiscrete([3, 2, 5]),
    "table of choices": gym.spaces.MultiDiscrete([[3, 4], [5, 2]]),
    "switches": gym.spaces.MultiBinary(3),
    "matrix": Box(-2, 2, (2, 2), np.float32),
    "whole numbers": Box(0, 9, (2,), np.int16),
    "nested": gym.spaces.Dict(
        {"mode": Discrete(3), "arm": gym.spaces.Tuple((Box(-1, 1, (2,)), Discrete(2)))}
    ),
}


@pytest.mark.parametrize("name", SPACES)
def test_every_action_survives_the_vector_and_the_bins_of_a_policy(name: str) -> None:
    space = SPACES[name]
    space.seed(0)
    vectors = VectorActions(space, rate_hz=5.0)
    kinds = {*vectors.space.integer, *vectors.space.binary}
    normaliser, codec = Normaliser(vectors.space, None), UniformBins(256)
    for _ in range(20):
        action = space.sample()
        vector = vectors.encode(action)
        assert vector.shape == (vectors.space.dim,) and vector.dtype == np.float32
        again = vectors.decode(vector)
        assert space.contains(again)
        assert np.array_equal(vectors.encode(again), vector)
        bins = codec.value(codec.index(normaliser(torch.from_numpy(vector))))
        learned = vectors.encode(vectors.decode(normaliser.inverse(bins).numpy()))
        whole = [n in kinds for n in vectors.space.names]
        assert np.array_equal(learned[whole], vector[whole])


def test_a_choice_is_a_whole_number_with_one_token_each() -> None:
    space = VectorActions(Discrete(7), 5.0).space
    assert space.integer == space.names == ("action_0",)
    symbols = integer_symbols(UniformBins(256, action_dim=1), space, 0)
    assert symbols is not None and len(symbols) == 7
    nested = VectorActions(SPACES["nested"], 5.0).space
    assert nested.names == ("arm/0_0", "arm/0_1", "arm/1", "mode")
    assert nested.integer == ("mode",) and nested.binary == ("arm/1",)


def test_numbers_beyond_the_space_are_clipped_and_choices_rounded() -> None:
    assert VectorActions(Discrete(4, start=3), 5.0).decode(np.array([99.0])) == 6
    assert VectorActions(Discrete(7), 5.0).decode(np.array([2.6])) == 3
    assert type(VectorActions(Discrete(7), 5.0).decode(np.array([1.0]))) is int
    assert VectorActions(SPACES["matrix"], 5.0).decode(np.full(4, 9.0)).tolist() == [[2, 2]] * 2
    wide = VectorActions(Box(-np.finfo(np.float32).max, np.inf, (1,)), 5.0)
    assert wide.space.low == (-np.inf,) and wide.decode(np.array([1e12])) == np.float32(1e12)


def test_without_clipping_numbers_have_no_bounds_and_choices_keep_theirs() -> None:
    joints = VectorActions(Box(-1, 1, (2,)), 50.0, clip=False)
    assert joints.space.low == (-np.inf,) * 2 and joints.space.high == (np.inf,) * 2
    assert joints.decode(np.array([-1.5, 1.16])).tolist() == pytest.approx([-1.5, 1.16])
    assert VectorActions(Discrete(4), 5.0, clip=False).decode(np.array([99.0])) == 3
