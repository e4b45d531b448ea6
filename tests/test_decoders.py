"""Decoders: parity with Hugging Face; packing, padding and caching change no result."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import SEQ2SEQ, decoder_config
from policies import WORDS

from vla.config import build
from vla.models.decoders.base import Prefix
from vla.models.decoders.constraints import FreeText
from vla.models.decoders.generation import generate
from vla.models.decoders.text import continuation, encode, text_loss
from vla.models.decoders.tokenizer import train_tokenizer
from vla.models.prompts import robot_prompt

# Learned positions, eager attention, a sliding window, one sequence per text. The start-up proof
# (test_proof.py) covers parity, caching and packing of all other families.
CAUSAL = ("gpt2", "gemma2", "gemma3_text", "lfm2")
LANGUAGE = [*CAUSAL, *SEQ2SEQ]
PROMPTS = [
    robot_prompt(t) for t in ("pick up the red apple", "banana", "what kind of thing is the fruit")
]


def make(family: str, **options: Any) -> Any:
    torch.manual_seed(0)
    decoder = build(
        "decoder", decoder_config(family) | options, tokenizer=train_tokenizer(WORDS, 800)
    ).eval()
    decoder.apply_finetuning([])
    return decoder


def any_decoder(family: str) -> tuple[Any, Prefix]:
    """A decoder and a prefix of two rows of image tokens."""
    torch.manual_seed(1)
    return make(family), Prefix(torch.randn(2, 9, 32))


def row(prefix: Prefix, n: int) -> Prefix:
    return prefix.select([n])


@torch.no_grad()
@pytest.mark.parametrize("family", CAUSAL)
def test_causal_logits_equal_hugging_face(family: str) -> None:
    decoder = make(family, image_attention="causal", image_positions="each")
    prefix, target = torch.randn(1, 5, 32), list(continuation(decoder.tokenizer, " 1 2 3 fruit"))
    ours = decoder.logits(
        decoder.encode_texts(Prefix(prefix), torch.tensor([0]), PROMPTS[:1], [target])
    )
    ids = torch.tensor([encode(decoder.tokenizer, PROMPTS[0]) + target])
    embeds = torch.cat([prefix, decoder.embed(ids)], 1)
    theirs = decoder.lm(inputs_embeds=embeds).logits[0, -len(target) - 1 :]
    assert torch.allclose(ours, theirs, atol=1e-5)
    some = torch.tensor([3, 300])
    hidden = decoder.encode_texts(Prefix(prefix), torch.tensor([0]), PROMPTS[:1], [target])
    assert torch.allclose(decoder.logits(hidden, some), ours[:, some], atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("family", SEQ2SEQ)
def test_seq2seq_logits_equal_hugging_face(family: str) -> None:
    decoder = make(family)
    prefix, target = torch.randn(1, 5, 32), list(continuation(decoder.tokenizer, " 1 2 3 fruit"))
    ours = decoder.logits(
        decoder.encode_texts(Prefix(prefix), torch.tensor([0]), PROMPTS[:1], [target])
    )
    ids = torch.tensor([[*encode(decoder.tokenizer, PROMPTS[0]), decoder.tokenizer.eos_token_id]])
    embeds = torch.cat([prefix, decoder.embed(ids)], 1)
    theirs = decoder.lm(
        inputs_embeds=embeds, decoder_input_ids=torch.tensor([[0, *target]])
    ).logits[0]
    assert torch.allclose(ours, theirs, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", LANGUAGE)
def test_texts_that_share_an_image_are_independent(family: str) -> None:
    decoder, prefix = any_decoder(family)
    targets = [list(continuation(decoder.tokenizer, t)) for t in (" 1 2 3", " 200 7", " 9")]
    owner = torch.tensor([0, 1, 0])
    together = text_loss(decoder, prefix, owner, PROMPTS, targets).loss_M
    single = [
        text_loss(decoder, row(prefix, int(o)), torch.tensor([0]), [p], [t]).loss_M
        for o, p, t in zip(owner, PROMPTS, targets, strict=True)
    ]
    assert torch.allclose(together, torch.cat(single), atol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", LANGUAGE)
def test_cached_generation_equals_uncached_encoding_and_rows_are_independent(family: str) -> None:
    decoder, prefix = any_decoder(family)
    prompts = [robot_prompt("pick"), robot_prompt("pick up the red apple banana")]
    constraints = [FreeText(-1, 6) for _ in prompts]
    generate(decoder, prefix, prompts, constraints)
    for n, constraint in enumerate(constraints):
        alone = FreeText(-1, 6)
        generate(decoder, row(prefix, n), prompts[n : n + 1], [alone])
        assert alone.tokens == constraint.tokens
        hidden = decoder.encode_texts(
            row(prefix, n), torch.tensor([0]), prompts[n : n + 1], [constraint.tokens]
        )
        assert decoder.logits(hidden)[:-1].argmax(-1).tolist() == constraint.tokens


@torch.no_grad()
@pytest.mark.parametrize("family", LANGUAGE)
def test_attend_image_false_hides_the_image(family: str) -> None:
    decoder, prefix = any_decoder(family)
    args = (torch.tensor([0]), PROMPTS[:1], [list(continuation(decoder.tokenizer, " fruit"))])
    views = [row(prefix, n) for n in (0, 1)]
    hidden = [
        text_loss(decoder, p, *args, attend_image_K=torch.tensor([False])).loss_M for p in views
    ]
    visible = [text_loss(decoder, p, *args).loss_M for p in views]
    assert torch.allclose(*hidden, atol=1e-6) and not torch.allclose(*visible, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("family", LANGUAGE)
def test_only_parallel_queries_attend_to_later_queries(family: str) -> None:
    decoder, prefix = any_decoder(family)
    owner, queries = torch.tensor([0, 1]), torch.randn(2, 4, 32)
    other = queries.clone()
    other[:, -1] = torch.randn(2, 32)
    for parallel in (False, True):
        a, b = (
            decoder.encode_texts(
                prefix, owner, PROMPTS[:2], [[], []], queries_KQD=q, parallel=parallel
            ).reshape(2, 5, 32)
            for q in (queries, other)
        )
        assert torch.allclose(a[:, 0], b[:, 0], atol=1e-6)  # the prompt attends to no query
        assert torch.allclose(a[:, 1:-1], b[:, 1:-1], atol=1e-6) != parallel


@torch.no_grad()
@pytest.mark.parametrize("family", LANGUAGE)
def test_queries_follow_the_target_ids(family: str) -> None:
    decoder, prefix = any_decoder(family)
    owner, queries = torch.tensor([0, 1]), torch.randn(2, 2, 32)
    ids = [encode(decoder.tokenizer, " red apple"), encode(decoder.tokenizer, " apple")]
    other = [[*ids[0][:-1], ids[1][0] if ids[0][-1] != ids[1][0] else ids[0][0]], ids[1]]
    first, second = (
        len(ids[0]),
        len(ids[0]) + 3,
    )  # states of the first text: before, between and after its items
    apart = decoder.encode_texts(prefix, owner, PROMPTS[:2], ids)
    for parallel in (False, True):
        a, b = (
            decoder.encode_texts(
                prefix, owner, PROMPTS[:2], i, queries_KQD=queries, parallel=parallel
            )
            for i in (ids, other)
        )
        assert len(a) == len(apart) + 4
        assert torch.allclose(
            a[: first + 1], apart[: first + 1], atol=1e-5
        )  # ids do not attend to the queries
        assert not torch.allclose(
            a[first + 1 : second], b[first + 1 : second], atol=1e-4
        )  # queries attend to the ids
        assert torch.allclose(a[second:], b[second:], atol=1e-5)  # but to no other text


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_separate_sequences_equal_packed_ones(family: str) -> None:
    decoder, prefix = any_decoder(family)
    owner, attend = torch.tensor([1, 0, 1, 0]), torch.tensor([True, False, True, True])
    prompts, ids = [*PROMPTS, PROMPTS[0]], [[5, 6], [7], [8, 9, 10], [11, 12]]
    queries = torch.randn(4, 2, 32)
    if family == "gpt2":  # without image tokens, absolute positions begin with the text
        decoder.image_positions = "shared"
    states, steps = [], []
    for execution in ("packed", "separate"):
        decoder.execution = execution
        args = (prefix, owner, prompts, ids)
        states.append(decoder.encode_texts(*args, attend, queries, family == "t5"))
        state, hidden = decoder.prefill(prefix, PROMPTS[:2])
        steps.append(torch.cat([hidden, decoder.decode_step(state, torch.tensor([[5], [6]]))], 1))
    with_image = torch.repeat_interleave(attend, torch.tensor([len(i) + 3 for i in ids]))
    assert torch.allclose(states[0][with_image], states[1][with_image], atol=1e-5)
    assert torch.allclose(*steps, atol=1e-5)
