"""Decoders: our logits are Hugging Face's own, packing and padding change nothing, cached writing equals uncached reading."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from families import CAUSAL, SEQ2SEQ, VLM, decoder_config, make_vlm

from vla.config import build
from vla.decoders.base import Prefix
from vla.decoders.text import FreeText, continuation, encode, robot_prompt, text_loss, write
from vla.decoders.tokenizer import train_tokenizer

WORDS = Counter(["pick", "up", "the", "red", "apple", "banana", "where", "is", "what", "kind", "of", "thing", "fruit"] * 50)
LANGUAGE = [*CAUSAL, *SEQ2SEQ]
PROMPTS = [robot_prompt(t) for t in ("pick up the red apple", "banana", "what kind of thing is the fruit")]


def make(family: str, **options: Any) -> Any:
    torch.manual_seed(0)
    decoder = build("decoder", decoder_config(family) | options, tokenizer=train_tokenizer(WORDS, 800)).eval()
    decoder.settle([])
    return decoder


@pytest.fixture(scope="module")
def vlm_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("vlm")
    return {f: make_vlm(f, root / f, train_tokenizer(WORDS, 800)) for f in VLM}


def make_whole(family: str, folders: dict[str, str]) -> Any:
    from vla.decoders.tokenizer import load_tokenizer

    return build("decoder", {"name": "vlm", "model": folders[family]}, tokenizer=load_tokenizer(folders[family])).eval()


def any_decoder(family: str, folders: dict[str, str]) -> tuple[Any, Prefix]:
    """A decoder and something to look at: two rows."""
    torch.manual_seed(1)
    if family in VLM:
        decoder = make_whole(family, folders)
        return decoder, decoder.see(torch.randint(0, 256, (2, 1, 1, 3, 32, 32), dtype=torch.uint8))
    return make(family), Prefix(torch.randn(2, 9, 32))


def row(decoder: Any, prefix: Prefix, n: int) -> Prefix:
    images = None if prefix.images_BVCHW is None else prefix.images_BVCHW[n : n + 1]
    return Prefix(prefix.tokens_BND[n : n + 1], images_BVCHW=images)


@torch.no_grad()
@pytest.mark.parametrize("family", CAUSAL)
def test_logits_equal_hugging_faces_own_forward(family: str) -> None:
    decoder = make(family, image_attention="causal", image_positions="each")
    prefix, target = torch.randn(1, 5, 32), list(continuation(decoder.tokenizer, " 1 2 3 fruit"))
    ours = decoder.logits(decoder.read(Prefix(prefix), torch.tensor([0]), PROMPTS[:1], [target]))
    ids = torch.tensor([encode(decoder.tokenizer, PROMPTS[0]) + target])
    embeds = torch.cat([prefix, decoder.embed(ids)], 1)
    theirs = decoder.lm(inputs_embeds=embeds).logits[0, -len(target) - 1 :]
    assert torch.allclose(ours, theirs, atol=1e-5)
    some = torch.tensor([3, 300])
    hidden = decoder.read(Prefix(prefix), torch.tensor([0]), PROMPTS[:1], [target])
    assert torch.allclose(decoder.logits(hidden, some), ours[:, some], atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("family", SEQ2SEQ)
def test_encoder_decoder_logits_equal_hugging_faces_own_forward(family: str) -> None:
    decoder = make(family)
    prefix, target = torch.randn(1, 5, 32), list(continuation(decoder.tokenizer, " 1 2 3 fruit"))
    ours = decoder.logits(decoder.read(Prefix(prefix), torch.tensor([0]), PROMPTS[:1], [target]))
    ids = torch.tensor([[*encode(decoder.tokenizer, PROMPTS[0]), decoder.tokenizer.eos_token_id]])
    embeds = torch.cat([prefix, decoder.embed(ids)], 1)
    theirs = decoder.lm(inputs_embeds=embeds, decoder_input_ids=torch.tensor([[0, *target]])).logits[0]
    assert torch.allclose(ours, theirs, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", VLM)
def test_a_whole_models_logits_equal_its_own_forward(family: str, vlm_folders: dict[str, str]) -> None:
    decoder = make_whole(family, vlm_folders)
    prefix = decoder.see(torch.randint(0, 256, (2, 2, 1, 3, 32, 32), dtype=torch.uint8))
    owner = torch.tensor([0, 1])
    inputs = decoder.inputs(prefix, owner, PROMPTS[:2])
    length = inputs["attention_mask"].sum(1)
    ours = decoder.logits(decoder.read(prefix, owner, PROMPTS[:2], [[], []]))
    theirs = decoder.lm(**{k: v for k, v in inputs.items() if k != "labels"}).logits
    assert torch.allclose(ours, theirs[[0, 1], length - 1], atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", [*LANGUAGE, *VLM])
def test_texts_that_share_an_image_are_independent(family: str, vlm_folders: dict[str, str]) -> None:
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
def test_written_texts_are_what_reading_says_and_neighbours_do_not_matter(family: str, vlm_folders: dict[str, str]) -> None:
    decoder, prefix = any_decoder(family, vlm_folders)
    prompts = [robot_prompt("pick"), robot_prompt("pick up the red apple banana")]
    writers = [FreeText(-1, 6) for _ in prompts]
    write(decoder, prefix, prompts, writers)
    for n, writer in enumerate(writers):
        alone = FreeText(-1, 6)
        write(decoder, row(decoder, prefix, n), prompts[n : n + 1], [alone])
        assert alone.tokens == writer.tokens
        hidden = decoder.read(row(decoder, prefix, n), torch.tensor([0]), prompts[n : n + 1], [writer.tokens])
        assert decoder.logits(hidden)[:-1].argmax(-1).tolist() == writer.tokens


@torch.no_grad()
@pytest.mark.parametrize("family", [*LANGUAGE, *VLM])
def test_a_text_that_must_not_look_does_not_see_the_picture(family: str, vlm_folders: dict[str, str]) -> None:
    decoder, prefix = any_decoder(family, vlm_folders)
    args = (torch.tensor([0]), PROMPTS[:1], [list(continuation(decoder.tokenizer, " fruit"))])
    views = [row(decoder, prefix, n) for n in (0, 1)]
    blind = [text_loss(decoder, p, *args, sees_K=torch.tensor([False])).loss_M for p in views]
    seeing = [text_loss(decoder, p, *args).loss_M for p in views]
    assert torch.allclose(*blind, atol=1e-6) and not torch.allclose(*seeing, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("family", [*LANGUAGE, *VLM])
def test_parallel_queries_see_each_other_and_others_only_their_past(family: str, vlm_folders: dict[str, str]) -> None:
    decoder, prefix = any_decoder(family, vlm_folders)
    owner, queries = torch.tensor([0, 1]), torch.randn(2, 4, 32)
    other = queries.clone()
    other[:, -1] = torch.randn(2, 32)
    for parallel in (False, True):
        a, b = (
            decoder.read(prefix, owner, PROMPTS[:2], [[], []], queries_KQD=q, parallel=parallel).reshape(2, 5, 32)
            for q in (queries, other)
        )
        assert torch.allclose(a[:, 0], b[:, 0], atol=1e-6)  # the prompt never looks ahead
        assert torch.allclose(a[:, 1:-1], b[:, 1:-1], atol=1e-6) != parallel


@torch.no_grad()
@pytest.mark.parametrize("family", [*LANGUAGE, *VLM])
def test_queries_stand_behind_the_ids(family: str, vlm_folders: dict[str, str]) -> None:
    decoder, prefix = any_decoder(family, vlm_folders)
    owner, queries = torch.tensor([0, 1]), torch.randn(2, 2, 32)
    ids = [encode(decoder.tokenizer, " red apple"), encode(decoder.tokenizer, " apple")]
    other = [[*ids[0][:-1], ids[1][0] if ids[0][-1] != ids[1][0] else ids[0][0]], ids[1]]
    first, second = len(ids[0]), len(ids[0]) + 3  # states of the first text: before, between and after its ids and both queries
    apart = decoder.read(prefix, owner, PROMPTS[:2], ids)
    for parallel in (False, True):
        a, b = (decoder.read(prefix, owner, PROMPTS[:2], i, queries_KQD=queries, parallel=parallel) for i in (ids, other))
        assert len(a) == len(apart) + 4
        assert torch.allclose(a[: first + 1], apart[: first + 1], atol=1e-5)  # ids never see the queries
        assert not torch.allclose(a[first + 1 : second], b[first + 1 : second], atol=1e-4)  # which see them
        assert torch.allclose(a[second:], b[second:], atol=1e-5)  # and no other text


def test_a_family_that_is_not_proven_is_refused(
    tmp_path: Path, vlm_folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vla.decoders.vlm.FAMILIES", {"paligemma": True})
    with pytest.raises(ValueError, match="is a 'llava'; proven families are paligemma"):
        make_whole("llava", vlm_folders)
