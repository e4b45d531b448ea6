"""Decoders: parity with Hugging Face; packing, padding and caching change no result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families import CAUSAL, SEQ2SEQ, VLM, decoder_config, make_vlm
from policies import WORDS

from vla.config import build
from vla.models.decoders.base import Prefix
from vla.models.decoders.generation import FreeText, generate
from vla.models.decoders.text import continuation, encode, text_loss
from vla.models.decoders.tokenizer import train_tokenizer
from vla.models.prompts import robot_prompt

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


@pytest.fixture(scope="module")
def vlm_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("vlm")
    return {f: make_vlm(f, root / f, train_tokenizer(WORDS, 800)) for f in VLM}


def make_vlm_decoder(family: str, folders: dict[str, str]) -> Any:
    from vla.models.decoders.tokenizer import load_tokenizer

    return build(
        "decoder",
        {"name": "vlm", "model": folders[family]},
        tokenizer=load_tokenizer(folders[family]),
    ).eval()


def any_decoder(family: str, folders: dict[str, str]) -> tuple[Any, Prefix]:
    """A decoder and a prefix of two images."""
    torch.manual_seed(1)
    if family in VLM:
        decoder = make_vlm_decoder(family, folders)
        return decoder, decoder.image_prefix(
            torch.randint(0, 256, (2, 1, 1, 3, 32, 32), dtype=torch.uint8)
        )
    return make(family), Prefix(torch.randn(2, 9, 32))


def row(decoder: Any, prefix: Prefix, n: int) -> Prefix:
    images = None if prefix.images_BVCHW is None else prefix.images_BVCHW[n : n + 1]
    return Prefix(prefix.tokens_BND[n : n + 1], images_BVCHW=images)


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
@pytest.mark.parametrize("family", VLM)
def test_vlm_logits_equal_hugging_face(family: str, vlm_folders: dict[str, str]) -> None:
    decoder = make_vlm_decoder(family, vlm_folders)
    prefix = decoder.image_prefix(torch.randint(0, 256, (2, 2, 1, 3, 32, 32), dtype=torch.uint8))
    owner = torch.tensor([0, 1])
    inputs = decoder.process(prefix, owner, PROMPTS[:2])
    length = inputs["attention_mask"].sum(1)
    ours = decoder.logits(decoder.encode_texts(prefix, owner, PROMPTS[:2], [[], []]))
    theirs = decoder.lm(**{k: v for k, v in inputs.items() if k != "labels"}).logits
    assert torch.allclose(ours, theirs[[0, 1], length - 1], atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", [*LANGUAGE, *VLM])
def test_texts_that_share_an_image_are_independent(
    family: str, vlm_folders: dict[str, str]
) -> None:
    decoder, prefix = any_decoder(family, vlm_folders)
    targets = [list(continuation(decoder.tokenizer, t)) for t in (" 1 2 3", " 200 7", " 9")]
    owner = torch.tensor([0, 1, 0])
    together = text_loss(decoder, prefix, owner, PROMPTS, targets).loss_M
    single = [
        text_loss(decoder, row(decoder, prefix, int(o)), torch.tensor([0]), [p], [t]).loss_M
        for o, p, t in zip(owner, PROMPTS, targets, strict=True)
    ]
    assert torch.allclose(together, torch.cat(single), atol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", [*LANGUAGE, *VLM])
def test_cached_generation_equals_uncached_encoding_and_rows_are_independent(
    family: str, vlm_folders: dict[str, str]
) -> None:
    decoder, prefix = any_decoder(family, vlm_folders)
    prompts = [robot_prompt("pick"), robot_prompt("pick up the red apple banana")]
    constraints = [FreeText(-1, 6) for _ in prompts]
    generate(decoder, prefix, prompts, constraints)
    for n, constraint in enumerate(constraints):
        alone = FreeText(-1, 6)
        generate(decoder, row(decoder, prefix, n), prompts[n : n + 1], [alone])
        assert alone.tokens == constraint.tokens
        hidden = decoder.encode_texts(
            row(decoder, prefix, n), torch.tensor([0]), prompts[n : n + 1], [constraint.tokens]
        )
        assert decoder.logits(hidden)[:-1].argmax(-1).tolist() == constraint.tokens


@torch.no_grad()
@pytest.mark.parametrize("family", [*LANGUAGE, *VLM])
def test_attend_image_false_hides_the_image(family: str, vlm_folders: dict[str, str]) -> None:
    decoder, prefix = any_decoder(family, vlm_folders)
    args = (torch.tensor([0]), PROMPTS[:1], [list(continuation(decoder.tokenizer, " fruit"))])
    views = [row(decoder, prefix, n) for n in (0, 1)]
    hidden = [
        text_loss(decoder, p, *args, attend_image_K=torch.tensor([False])).loss_M for p in views
    ]
    visible = [text_loss(decoder, p, *args).loss_M for p in views]
    assert torch.allclose(*hidden, atol=1e-6) and not torch.allclose(*visible, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("family", [*LANGUAGE, *VLM])
def test_only_parallel_queries_attend_to_later_queries(
    family: str, vlm_folders: dict[str, str]
) -> None:
    decoder, prefix = any_decoder(family, vlm_folders)
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
@pytest.mark.parametrize("family", [*LANGUAGE, *VLM])
def test_queries_follow_the_target_ids(family: str, vlm_folders: dict[str, str]) -> None:
    decoder, prefix = any_decoder(family, vlm_folders)
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


def test_unsupported_vlm_families_are_refused(
    tmp_path: Path, vlm_folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vla.models.decoders.vlm.FAMILIES", {"paligemma": True})
    with pytest.raises(ValueError, match="is a 'llava'; supported families are paligemma"):
        make_vlm_decoder("llava", vlm_folders)
