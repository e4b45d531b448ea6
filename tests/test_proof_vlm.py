"""The start-up proof of vision-language models: every family is right or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from policies import WORDS
from vlm_models import make_default_vlm, make_vlm

from vla.config import build
from vla.errors import ConfigError
from vla.models.decoders.proof import Check, Verdict
from vla.models.decoders.proof_vlm import prove_vlm_family
from vla.models.decoders.tokenizer import load_tokenizer, train_tokenizer

QUICK = ("internvl", "llava_next", "llava_onevision", "mistral3", "qwen2_vl")


def build_decoder(folder: str) -> Any:
    config = {"name": "vlm", "model": folder}
    return build("decoder", config, tokenizer=load_tokenizer(folder))


@pytest.mark.parametrize("family", QUICK)
def test_a_family_without_an_entry_passes(family: str) -> None:
    verdict = prove_vlm_family(family)
    assert verdict.verdict == "right", verdict.reason


def test_a_sliding_window_runs_unlike_texts_separately() -> None:
    assert prove_vlm_family("gemma3").verdict == "right, separate sequences"


@pytest.mark.parametrize("family", ["git"])
def test_a_refused_family_is_refused_with_the_check(family: str, tmp_path: Path) -> None:
    folder = make_default_vlm(family, tmp_path / family)
    reason = prove_vlm_family(family).reason
    assert reason
    with pytest.raises(ConfigError, match=f"vlm '{family}' is refused by the start-up proof"):
        build_decoder(folder)


def test_a_failed_check_refuses_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Verdict("vlm", "llava", (Check("cached equals uncached", False, "by 0.1"),))
    monkeypatch.setattr("vla.models.decoders.vlm.prove_vlm", lambda *_: failed)
    folder = make_vlm("llava", tmp_path / "llava", train_tokenizer(WORDS, 800))
    with pytest.raises(ConfigError, match=r"'llava' is refused .*: cached equals uncached: by 0.1"):
        build_decoder(folder)


def test_a_model_that_forgets_its_mask_fails_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    from vla.models.decoders import proof_vlm, vlm_inputs
    from vla.models.decoders.tiny_vlm import tiny_family

    monkeypatch.setattr(vlm_inputs, "_GENERATED_TYPE", {})  # the suffix becomes bidirectional
    config, processor = tiny_family("paligemma")
    verdict = proof_vlm._prove(config, processor)
    assert verdict.verdict == "refused" and verdict.reason


def test_weights_without_influence_are_frozen(tmp_path: Path) -> None:
    folder = make_vlm("llava", tmp_path / "llava", train_tokenizer(WORDS, 800))
    decoder = build_decoder(folder)
    decoder.apply_finetuning([])
    frozen = {n for n, p in decoder.lm.named_parameters() if not p.requires_grad}
    assert frozen and all("vision" in n and "norm" in n for n in frozen)
    images = torch.randint(0, 256, (1, 1, 1, 3, 32, 32), dtype=torch.uint8)
    hidden = decoder.encode_texts(
        decoder.image_prefix(images), torch.tensor([0]), ["Q: what? A:"], [[5]]
    )
    decoder.logits(hidden).sum().backward()
    missing = {n for n, p in decoder.lm.named_parameters() if p.grad is None}
    assert missing == frozen
