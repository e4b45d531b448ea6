"""The start-up proof of causal language models."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from vla.models.decoders.base import Prefix
from vla.models.decoders.causal_texts import CausalTexts
from vla.models.decoders.checks import Subject, encode_one
from vla.models.decoders.proof import Verdict
from vla.models.decoders.proving import prove_language
from vla.models.decoders.tiny_models import ProofTokenizer, tiny_model


def causal_families() -> list[str]:
    """Model types of all causal language models in transformers, sorted."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def prove_causal(config: Any) -> Verdict:
    """The verdict about a family, see ``prove_language``."""
    return prove_language("causal", config, tiny_decoder, _subject)


def tiny_decoder(config: Any) -> CausalTexts:
    """A tiny decoder of the class of a configuration, without a proof."""
    lm = tiny_model(AutoModelForCausalLM, config, lambda lm, ids: lm(input_ids=ids))
    return CausalTexts.of_model(lm, ProofTokenizer())


def _subject(decoder: CausalTexts) -> Subject:
    images = Prefix(torch.randn(2, 4, decoder.width))

    def own(row: Prefix, prompt: str, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        decoder.image_attention, decoder.image_positions = "causal", "each"
        ours = decoder.logits(encode_one(decoder, row, prompt, ids))
        decoder.image_attention, decoder.image_positions = "full", "shared"
        text = torch.tensor([[*decoder.tokenizer.encode(prompt), *ids]])
        given = {"input_ids": text}
        if row.tokens_BND.shape[1]:
            given = {"inputs_embeds": torch.cat([row.tokens_BND, decoder.embed(text)], 1)}
        return ours, decoder.lm(**given, use_cache=False).logits[0, -len(ids) - 1 :]

    row = images.select([0])
    compared = (Prefix(row.tokens_BND[:, :0]), row)
    # Recurrent layers read queries in order.
    return Subject(decoder, images, images, own, compared, in_order=decoder.execution == "separate")
