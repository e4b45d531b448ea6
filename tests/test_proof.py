"""The start-up proof of causal families: right ones pass, wrong ones are refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from vla.config import check
from vla.errors import ConfigError
from vla.models.decoders import proving
from vla.models.decoders.base import Prefix
from vla.models.decoders.causal_texts import CausalTexts
from vla.models.decoders.masks import TextStructure
from vla.models.decoders.proof import Verdict, cache_folder
from vla.models.decoders.proof_causal import prove_causal, tiny_decoder
from vla.models.decoders.text import text_loss
from vla.models.decoders.tiny import WINDOW, default_config
from vla.training.run import RunConfig, train

RIGHT = "right"
SEPARATE = "right, separate sequences"
REFUSED = "refused"
VERDICTS = {
    "gpt2": RIGHT,
    "llama": RIGHT,
    "mistral": RIGHT,
    "gemma2": RIGHT,
    "gemma3_text": RIGHT,
    "gpt_oss": RIGHT,
    "olmo3": RIGHT,
    "phi3": RIGHT,
    "qwen3": RIGHT,
    "bloom": SEPARATE,
    "mamba": SEPARATE,
    "lfm2": SEPARATE,
    "bert": REFUSED,
    "recurrent_gemma": REFUSED,
}
ONCE_SILENTLY_WRONG = (
    "lfm2",
    "falcon_h1",
    "mamba2",
    "rwkv",
    "qwen3_next",
    "qwen3_5_text",
    "recurrent_gemma",
)
PROMPTS = ["pick up the red apple", "banana", "what kind of thing is the fruit"]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An empty cache for the tests of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def decoder_of(family: str) -> CausalTexts:
    """A tiny decoder that executes texts as the proof found."""
    verdict = prove_causal(family)
    torch.manual_seed(0)
    decoder = tiny_decoder(default_config(family)).eval()
    decoder.accept(verdict)
    return decoder


@pytest.mark.parametrize("family", VERDICTS)
def test_families_are_right_or_refused(family: str) -> None:
    verdict = prove_causal(family)
    assert verdict.verdict == VERDICTS[family], verdict.reason
    assert bool(verdict.reason) == (verdict.verdict == REFUSED)


@torch.no_grad()
@pytest.mark.parametrize("family", ONCE_SILENTLY_WRONG)
def test_the_loss_of_packed_texts_is_that_of_single_texts(family: str) -> None:
    try:
        decoder = decoder_of(family)
    except ConfigError as error:
        assert "refused by the start-up proof" in str(error)
        return
    prefix, rows = Prefix(torch.randn(2, 5, decoder.width)), [0, 1, 0]
    targets = [[7, 8, 9], [10], [11, 12]]
    together = text_loss(decoder, prefix, torch.tensor(rows), PROMPTS, targets).loss_M
    single = [
        text_loss(decoder, prefix.select([row]), torch.tensor([0]), [prompt], [target]).loss_M
        for row, prompt, target in zip(rows, PROMPTS, targets, strict=True)
    ]
    assert together.mean() == pytest.approx(float(torch.cat(single).mean()), abs=1e-5)
    hidden = [
        text_loss(
            decoder,
            prefix.select([row]),
            torch.tensor([0]),
            PROMPTS[:1],
            targets[:1],
            attend_image_K=torch.tensor([False]),
        ).loss_M
        for row in (0, 1)
    ]
    assert torch.equal(*hidden)  # a text that must not attend to its image does not


@torch.no_grad()
@pytest.mark.parametrize("family", ["mistral", "gemma3_text"])
def test_logits_beyond_the_window_equal_those_of_hugging_face(family: str) -> None:
    decoder = decoder_of(family)
    decoder.image_attention, decoder.image_positions = "causal", "each"
    prefix, target = Prefix(torch.randn(1, 4, decoder.width)), list(range(5, 5 + 3 * WINDOW))
    ours = decoder.logits(decoder.encode_texts(prefix, torch.tensor([0]), PROMPTS[:1], [target]))
    ids = decoder.tokenizer.encode(PROMPTS[0]) + target
    embeds = torch.cat([prefix.tokens_BND, decoder.embed(torch.tensor([ids]))], 1)
    theirs = decoder.lm(inputs_embeds=embeds).logits[0, -len(target) - 1 :]
    assert torch.allclose(ours, theirs, atol=1e-4)
    # The window matters: without it the logits are others.
    assert decoder.lm.config.sliding_window == WINDOW
    decoder.lm.config.sliding_window = 1000
    wide = decoder.lm(inputs_embeds=embeds).logits[0, -1]
    assert not torch.allclose(ours[-1], wide, atol=1e-3)


@pytest.mark.usefixtures("empty_cache")
def test_a_wrong_mask_fails_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    causal = TextStructure.mask_function

    def no_window(structure: TextStructure, of_family: Any) -> Any:
        return causal(structure, lambda b, h, q, k: k <= q)

    monkeypatch.setattr(TextStructure, "mask_function", no_window)
    assert prove_causal("gpt2").right
    verdict = prove_causal("mistral")
    assert verdict.verdict == REFUSED and "relative difference" in verdict.reason


@pytest.mark.usefixtures("empty_cache")
def test_texts_that_see_each_other_get_separate_sequences(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(TextStructure, "mask_function", lambda self, of_family: of_family)
    verdict = prove_causal("llama")
    assert (verdict.right, verdict.execution) == (True, "separate")


def test_a_refused_family_is_refused_in_training(tiny_run: dict[str, Any]) -> None:
    config = {"model_type": "bert", "hidden_size": 32, "num_attention_heads": 2}
    policy = tiny_run["policy"]
    run = tiny_run | {"policy": policy | {"decoder": policy["decoder"] | {"config": config}}}
    with pytest.raises(ConfigError, match=r"'bert' is refused.*logits equal the model's own"):
        train(check(run, RunConfig, ""), progress=False)


@pytest.mark.usefixtures("empty_cache")
def test_the_verdict_is_cached_and_random_numbers_do_not_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    prove = proving.prove
    monkeypatch.setattr(proving, "prove", lambda *a: calls.append(a) or prove(*a))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = prove_causal("gpt2")
    assert torch.equal(torch.rand(1), expected)
    assert prove_causal("gpt2") == first and len(calls) == 1
    # Fields that change the attention need another proof; widths do not.
    wide = default_config("gpt2")
    wide.n_embd, wide.n_layer = 96, 7
    assert prove_causal(wide) == first and len(calls) == 1
    wide.scale_attn_by_inverse_layer_idx = True
    assert prove_causal(wide).right and len(calls) == 2
    (file, _) = sorted(cache_folder().glob("*.json"))
    file.write_text("{")
    assert prove_causal("gpt2").right and prove_causal(wide).right and len(calls) == 3


def test_a_configuration_that_cannot_be_built_is_refused_with_the_error() -> None:
    verdict: Verdict = prove_causal("blt")
    assert verdict.verdict == REFUSED and "parameters" in verdict.reason
