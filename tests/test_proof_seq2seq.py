"""The start-up proof of encoder-decoder families: right ones pass, others are refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from families import SEQ2SEQ
from policies import WORDS

from vla.config import build
from vla.errors import ConfigError
from vla.models.decoders.base import Prefix
from vla.models.decoders.output_layer import HiddenToLogits
from vla.models.decoders.proof import Check, Verdict
from vla.models.decoders.proof_seq2seq import prove_seq2seq, tiny_decoder
from vla.models.decoders.seq2seq_texts import Seq2SeqTexts
from vla.models.decoders.tiny import default_config
from vla.models.decoders.tokenizer import train_tokenizer

RIGHT = ("t5", "umt5", "bart", "t5gemma")
# Family -> the check that fails.
REFUSED = {
    "switch_transformers": "cached equals uncached",  # experts refuse tokens beyond a capacity
    "voxtral": "tiny model: this model has no encoder",
    "encoder-decoder": "logits equal the model's own",
}


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An empty cache for the tests of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def build_decoder(config: dict[str, Any]) -> Any:
    options = {"name": "seq2seq", "vocab_size": 800, "config": config}
    return build("decoder", options, tokenizer=train_tokenizer(WORDS, 800)).eval()


@pytest.mark.parametrize("family", RIGHT)
def test_families_are_right(family: str) -> None:
    verdict = prove_seq2seq(family)
    assert verdict.verdict == "right", verdict.reason


@pytest.mark.parametrize("family", REFUSED)
def test_families_are_refused_with_the_check(family: str) -> None:
    verdict = prove_seq2seq(family)
    assert verdict.verdict == "refused" and verdict.reason.startswith(REFUSED[family])


def test_a_refused_family_builds_no_decoder() -> None:
    config = {"model_type": "switch_transformers", "d_model": 32, "num_layers": 2}
    with pytest.raises(ConfigError, match=r"seq2seq 'switch_transformers' is refused .*: cached"):
        build_decoder(config)


def test_a_failed_check_refuses_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Verdict("seq2seq", "t5", (Check("packed texts equal each alone", False, "by 1"),))
    monkeypatch.setattr("vla.models.decoders.seq2seq.prove_seq2seq", lambda _: failed)
    with pytest.raises(ConfigError, match=r"'t5' is refused .*: packed texts equal each alone"):
        build_decoder(SEQ2SEQ["t5"])


def test_wrong_logits_and_masks_fail_the_proof(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with monkeypatch.context() as patch:  # padding of short prompts is visible
        read = Seq2SeqTexts._read

        def no_mask(self: Any, *args: Any) -> tuple[torch.Tensor, torch.Tensor]:
            encoded, mask = read(self, *args)
            return encoded, torch.ones_like(mask)

        patch.setattr(Seq2SeqTexts, "_read", no_mask)
        assert prove_seq2seq("umt5").verdict == "right, separate sequences"
    monkeypatch.setattr(HiddenToLogits, "__call__", lambda self, lm, hidden, *_: hidden @ lm)
    assert prove_seq2seq("t5").reason.startswith("logits equal the model's own")


@torch.no_grad()
def test_a_decoder_with_its_own_embeddings_equals_hugging_face() -> None:
    decoder = tiny_decoder(default_config("t5gemma")).eval()
    lm, tokenizer = decoder.lm, decoder.tokenizer
    assert lm.get_input_embeddings() is not lm.get_decoder().embed_tokens
    prompt, target = "pick up the red apple", list(range(5, 40))  # longer than the window
    row = torch.zeros(1, dtype=torch.long)
    image = torch.randn(1, 4, decoder.width)
    ours = decoder.logits(decoder.encode_texts(Prefix(image), row, [prompt], [target]))
    text = torch.tensor([[*tokenizer.encode(prompt), tokenizer.eos_token_id]])
    embeds = torch.cat([image, decoder.embed(text)], 1)
    start = lm.config.decoder.bos_token_id
    theirs = lm(inputs_embeds=embeds, decoder_input_ids=torch.tensor([[start, *target]])).logits
    assert torch.allclose(ours, theirs[0], atol=1e-4)
