"""Whole-number action dimensions, such as the mode of RT-1's 11 dimensions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from policies import WORDS
from robot_files import write_folder
from tokenizer_kinds import tokenizer_of

from vla.benchmarks.tabletop.layouts import LAYOUTS
from vla.data.manifest import load_manifest
from vla.data.mapping import Mapping
from vla.data.pack import pack
from vla.data.robot import RobotSource
from vla.errors import BadSample, DataError
from vla.inference.action_queue import ActionQueue
from vla.models.actions.bins import QuantileBins, UniformBins
from vla.models.actions.constrained_decoding import (
    ActionConstraint,
    ActionTokenRules,
    integer_symbols,
)
from vla.models.actions.fast import FastCodec
from vla.models.actions.vocabulary import ActionVocabulary
from vla.policies.execution import Execution
from vla.policies.spec import RobotSpec
from vla.policies.units import to_legal_actions
from vla.types import ActionSpace

RT1 = LAYOUTS["rt1"]
MODE = RT1.names.index("mode")


def allowed_numbers(codec: Any, tokenizer: Any, assignment: Any, space: ActionSpace) -> list[set]:
    """For every number of a chunk: the symbols that a random walk over allowed tokens wrote."""
    vocabulary = ActionVocabulary(tokenizer, codec.symbols, assignment, WORDS)
    rules = ActionTokenRules(codec, vocabulary, tokenizer.eos_token_id, space)
    rng, written = np.random.default_rng(0), [set() for _ in range(codec.length)]
    for _ in range(60):
        constraint = ActionConstraint(rules)
        while not constraint.done:
            constraint.push(int(rng.choice(constraint.allowed().numpy())))
        for numbers, symbol in zip(written, constraint.symbols, strict=True):
            numbers.add(symbol)
    return written


@pytest.mark.parametrize(
    ("kind", "assignment"),
    [("bytes", "integers"), ("digits", "integers"), ("wordpiece", "integers"), ("bytes", "extra")],
)
def test_only_whole_modes_can_be_generated(kind: str, assignment: str) -> None:
    codec = UniformBins(256, action_dim=RT1.dim, horizon=2)
    written = allowed_numbers(codec, tokenizer_of(kind), assignment, RT1)
    for position, symbols in enumerate(written):
        if position % RT1.dim == MODE:
            assert symbols == {0, 128, 255}
            values = codec.value(torch.tensor(sorted(symbols)))
            assert (values + 1).round().tolist() == [0, 1, 2]
        else:
            assert len(symbols) > 20


@pytest.mark.parametrize("bins", [3, 4, 7, 256])
@pytest.mark.parametrize("numbers", [2, 3, 6])
def test_every_whole_number_survives_the_bins(bins: int, numbers: int) -> None:
    space = ActionSpace(("n",), ("",), (-1.0,), (numbers - 2.0,), integer=("n",))
    codec = UniformBins(bins)
    if numbers > bins:
        with pytest.raises(ValueError, match=rf"{bins} bins .* the {numbers} whole numbers of .*n"):
            integer_symbols(codec, space, 0)
        return
    symbols = integer_symbols(codec, space, 0)
    assert symbols is not None and len(symbols) == numbers
    normalized = codec.value(torch.tensor(symbols))
    actions = (normalized.numpy() + 1) / 2 * (numbers - 1) - 1
    legal = to_legal_actions(RobotSpec(space, (), (0, 0)), actions[:, None, None], None)
    assert legal.ravel().tolist() == list(range(-1, numbers - 1))


def test_codecs_without_such_symbols_do_not_constrain_whole_numbers() -> None:
    assert integer_symbols(FastCodec(128, action_dim=11, horizon=1), RT1, MODE) is None
    assert integer_symbols(UniformBins(256, action_dim=11), RT1, 0) is None
    quantiles = torch.zeros(101, 11)
    quantiles[:, :10] = torch.linspace(-1, 1, 101)[:, None]
    quantiles[:, MODE] = torch.cat([-torch.ones(80), torch.ones(21)])  # mode 1 is not in the data
    codec = QuantileBins(16, action_dim=11, quantiles=quantiles)
    symbols = integer_symbols(codec, RT1, MODE)
    assert symbols is not None
    assert {round(v) for v in codec.value(column(symbols))[:, MODE].tolist()} >= {-1, 1}


def column(symbols: tuple[int, ...]) -> torch.Tensor:
    index = torch.zeros(len(symbols), 11, dtype=torch.long)
    index[:, MODE] = torch.tensor(symbols)
    return index


def test_predicted_modes_are_rounded_and_ensembles_vote() -> None:
    actions = np.zeros((1, 2, 11), np.float32)
    actions[0, :, MODE] = 1.4, 1.6
    legal = to_legal_actions(RobotSpec(RT1, (), (0, 0)), actions, None)
    assert legal[0, :, MODE].tolist() == [1.0, 2.0]
    queue = ActionQueue(RT1, 2, Execution(temporal_ensemble=0.0))
    for mode in (0.0, 2.0, 2.0):  # the mean is no mode that a chunk has
        chunk = np.zeros((3, 11), np.float32)
        chunk[:, MODE], chunk[:, 0] = mode, mode / 100
        queue.push("a", chunk)
        action = queue.pop("a")
    assert action[MODE] == 2.0 and action[0] == pytest.approx(0.04 / 3)


def test_action_spaces_check_whole_numbers() -> None:
    arguments = {"names": ("n",), "units": ("",), "low": (0.0,), "high": (2.0,), "integer": ("n",)}
    space = ActionSpace(**arguments)
    assert ActionSpace.from_dict(space.to_dict()) == space
    with pytest.raises(ValueError, match=r"integer dims \['m'\] are not among"):
        ActionSpace(**arguments | {"integer": ("m",)})
    with pytest.raises(ValueError, match=r"bounds 0\.5 and 2 of the integer dim 'n' must be whole"):
        ActionSpace(**arguments | {"low": (0.5,)})
    with pytest.raises(ValueError, match=r"\['n'\] are binary and integer"):
        ActionSpace(**arguments, binary=("n",))
    relative = RobotSpec(space, (), (0, 0), relative=(0,)).learned_space
    assert relative.integer == ()  # a difference of modes is no mode


def test_recorded_data_with_a_mode(tmp_path: Path) -> None:
    """The column grip of the folder has the values 0 and 1."""
    rules = Mapping(size=32, integer=["grip"])
    pack(RobotSource(str(write_folder(tmp_path / "raw")), rules), tmp_path / "p", 2, progress=False)
    space = load_manifest(tmp_path / "p").action_space
    assert space is not None and space.integer == ("grip",)
    assert (space.low[2], space.high[2]) == (0.0, 1.0)
    with pytest.raises(DataError, match=r"mapping\.integer: no 'mode'; choices: x, y, grip"):
        RobotSource(str(tmp_path / "raw"), replace(rules, integer=["mode"]))
    source = RobotSource(str(tmp_path / "raw"), replace(rules, integer=["x"]))
    with pytest.raises(BadSample, match=r"x has the value 0\.5 at step 0, expected a whole number"):
        pack(source, tmp_path / "bad", 2, progress=False)
