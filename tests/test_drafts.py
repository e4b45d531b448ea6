"""Speculative decoding: drafts change no token, whatever they are."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from families import decoder_config
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import WORDS, make_policy, robot_batch

from vla.config import build
from vla.errors import ActionError
from vla.inference.engine import speed_up
from vla.models.decoders.base import Prefix
from vla.models.decoders.constraints import FreeText, Segments
from vla.models.decoders.drafts import Draft
from vla.models.decoders.fast_decoding import static_decoding
from vla.models.decoders.generation import generate
from vla.models.decoders.sampling import Sampling, TokenSampler
from vla.models.decoders.tokenizer import train_tokenizer
from vla.models.prompts import robot_prompt

PROMPTS = [robot_prompt(t) for t in ("pick", "pick up the red apple", "what is the banana")]
LIMIT = 7


def make(family: str) -> Any:
    torch.manual_seed(0)
    decoder = build("decoder", decoder_config(family), tokenizer=train_tokenizer(WORDS, 800)).eval()
    decoder.apply_finetuning([])
    return decoder


GPT2, T5 = make("gpt2"), make("t5")
IMAGES = Prefix(torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(1)))


def texts(decoder: Any, prompts: list[str], drafts: Any = (), temperature: float = 0.0) -> Any:
    """Tokens of every row, and passes."""
    rows = [FreeText(-1, LIMIT) for _ in prompts]
    sampler = None
    if temperature:
        sampler = TokenSampler(Sampling(temperature), range(len(prompts)))
    prefix = IMAGES.select(range(len(prompts)))
    out = generate(decoder, prefix, prompts, [Segments([r]) for r in rows], sampler, drafts)
    assert [row.tokens for row in rows] == out.tokens
    return out.tokens, out.passes


@settings(max_examples=12, deadline=None)
@given(data=st.data(), decoder=st.sampled_from([GPT2, T5]), temperature=st.sampled_from([0.0, 1.5]))
def test_any_draft_gives_the_same_tokens(data: Any, decoder: Any, temperature: float) -> None:
    prompts = PROMPTS[: data.draw(st.integers(1, 3))]
    expected, passes = texts(decoder, prompts, (), temperature)
    assert passes == LIMIT
    drafts = []
    for row in expected:
        right = data.draw(st.integers(0, LIMIT))
        other = data.draw(st.lists(st.integers(0, 500), max_size=LIMIT))
        drafts.append(row[:right] + other)
    found, passes = texts(decoder, prompts, drafts, temperature)
    assert found == expected and passes <= LIMIT


@pytest.mark.parametrize("decoder", [GPT2, T5], ids=["gpt2", "t5"])
def test_right_drafts_need_one_pass_and_one_wrong_token_two(decoder: Any) -> None:
    expected, _ = texts(decoder, PROMPTS)
    assert texts(decoder, PROMPTS, expected) == (expected, 1)
    wrong = [[*row[:2], (row[2] + 1) % 500, *row[3:]] for row in expected]
    found, passes = texts(decoder, PROMPTS, wrong)
    assert found == expected and passes < LIMIT


def test_no_token_is_chosen_from_logits_that_are_not_numbers() -> None:
    broken = Prefix(torch.full_like(IMAGES.tokens_BND, torch.nan))
    with pytest.raises(ActionError, match="NaN"):
        generate(GPT2, broken, PROMPTS, [FreeText(-1, 2) for _ in PROMPTS])


def test_a_decoder_that_cannot_drop_tokens_gets_no_draft() -> None:
    decoder = make("lfm2")
    assert not decoder.takes_drafts
    expected, _ = texts(decoder, PROMPTS)
    assert texts(decoder, PROMPTS, expected) == (expected, LIMIT)


@pytest.mark.parametrize(
    ("head", "horizon"),
    [
        ({"name": "token", "plan": True, "plan_tokens": 4}, 1),
        ({"name": "token"}, 3),
        ({"name": "token", "plan": True, "plan_switch_margin": 1.0}, 1),
        ({"name": "chain_of_thought", "action": {"name": "regression"}, "plan_tokens": 4}, 2),
    ],
)
def test_policies_act_alike_with_drafts(head: dict[str, Any], horizon: int) -> None:
    policy = make_policy(head=head, horizon=horizon).eval()
    batch, drafts = robot_batch(2, horizon), [Draft(steps=0), Draft(steps=0)]
    assert policy.uses_drafts()
    for _ in range(3):
        actions, plans = policy.predict(
            batch.images_BVTCHW, ["pick the banana", "pick"], drafts=drafts
        )
        policy.decoder.drafts = False
        expected, written = policy.predict(batch.images_BVTCHW, ["pick the banana", "pick"])
        policy.decoder.drafts = True
        assert np.array_equal(actions, expected) and plans == written
    assert 0 < drafts[0].passes < drafts[0].tokens


def test_the_draft_of_a_chunk_is_the_rest_of_the_last_chunk() -> None:
    policy = make_policy(head={"name": "token"}, horizon=3)
    head, dim = policy.head(), policy.spec.action_space.dim
    symbols = [k // dim for k in range(3 * dim)]  # the number of the step
    targets = head.token_rules.targets
    for steps, expected in ((1, [1, 2, 2]), (2, [2, 2, 2]), (3, [2, 2, 2])):
        draft = Draft(steps, [7], symbols)
        assert head._draft_ids(draft) == [7, *targets([s for s in expected for _ in range(dim)])]


def test_the_static_cache_gives_the_same_tokens_also_beyond_its_end() -> None:
    policy = make_policy(head={"name": "token", "plan": True, "plan_tokens": 4}).eval()
    images, rows = robot_batch(1).images_BVTCHW, ["pick up the banana"]
    expected = policy.predict(images, rows)
    assert speed_up(policy.robot())
    static = policy.decoder.static
    for _ in range(2):
        found = policy.predict(images, rows)
        assert np.array_equal(found[0], expected[0]) and found[1] == expected[1]
        prefix = policy.prefix(images, policy.robot().robot)
        state, _ = static.prefill(prefix, robot_prompt(rows[0]), [])
        static.capacity = state.extra["start"] + 3  # the next text continues without it


def test_a_pass_that_cannot_be_compiled_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def compile_(step: Any, **options: Any) -> Any:
        def run(*args: Any) -> Any:
            raise RuntimeError("no compiler")

        return run

    monkeypatch.setattr(torch, "compile", compile_)
    with caplog.at_level(logging.WARNING):
        static = static_decoding(GPT2, IMAGES.select([0]), PROMPTS[0], True)
    assert static is not None and caplog.messages == [
        "not compiled, so decoding is slower: no compiler"
    ]
    GPT2.static = static
    try:
        found = texts(GPT2, PROMPTS[:1])
    finally:
        GPT2.static = None
    assert found == texts(GPT2, PROMPTS[:1])


@pytest.mark.parametrize("family", ["gemma3_text", "lfm2"])
def test_sliding_windows_and_recurrent_layers_have_no_static_cache(
    family: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert static_decoding(make(family), IMAGES.select([0]), PROMPTS[0], False) is None
    assert caplog.messages[-1].startswith(f"{family}: no static cache: ")
