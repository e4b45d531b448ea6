"""Actions as signed numbers: RT-2's text "X Y" of Language-Table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_POLICY
from policies import WORDS, build_policy
from tokenizer_kinds import tokenizer_of

from vla.models.actions.bins import UniformBins
from vla.models.actions.constrained_decoding import ActionConstraint, ActionTokenRules
from vla.models.actions.vocabulary import ActionVocabulary, VocabularyError
from vla.models.decoders.tokenizer import train_tokenizer
from vla.policies.checkpoint import load_policy, save_policy
from vla.types import ActionSpace

SPACE = ActionSpace(("x", "y"), ("m", "m"), (-0.1, -0.1), (0.1, 0.1))


def tokenizer(kind: str) -> Any:
    return train_tokenizer(WORDS, 800) if kind == "own" else tokenizer_of(kind)


@pytest.mark.parametrize("kind", ["own", "bytes", "digits", "sentencepiece"])
def test_signed_numbers_are_written_and_read_with_every_tokenizer(kind: str) -> None:
    codec, tok = UniformBins(21, action_dim=2, horizon=2), tokenizer(kind)
    vocabulary = ActionVocabulary(tok, 21, first_number=-10)
    actions = torch.tensor([[[-1.0, 1.0], [0.0, -0.3]]])
    symbols = codec.encode(actions, [2])[0]
    assert vocabulary.text(symbols) == " -10 10 0 -3"
    rules = ActionTokenRules(codec, vocabulary, tok.eos_token_id, SPACE)
    constraint = ActionConstraint(rules)
    for token in rules.targets(symbols):
        assert token in constraint.allowed().tolist()
        constraint.push(token)
    assert constraint.done and constraint.symbols == symbols
    assert (codec.decode([constraint.symbols]) - actions).abs().max() < 1 / 21


@pytest.mark.parametrize("assignment", ["extra", "overwrite"])
def test_tokens_that_are_no_numbers_have_no_first_number(assignment: Any) -> None:
    with pytest.raises(VocabularyError, match=rf"first_number=-10: token_assignment={assignment}"):
        ActionVocabulary(tokenizer("own"), 21, assignment, WORDS, first_number=-10)


def test_a_saved_policy_keeps_its_numbers(tmp_path: Path) -> None:
    head = {"name": "token", "codec": {"name": "uniform", "bins": 21}, "first_number": -10}
    config = TINY_POLICY | {"head": head}
    loaded = load_policy(save_policy(build_policy(config), config, tmp_path / "policy"), "cpu")
    chunk = torch.tensor([[-1, -0.8, -0.45, -0.1, 0.1, 0.45, 0.8, 1]])
    assert loaded.head().text(chunk) == " -10 -8 -5 -1 1 5 8 10"
