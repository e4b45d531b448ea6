"""The start-up proof of causal language models."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from vla.models.decoders.base import Prefix
from vla.models.decoders.causal_texts import CausalTexts
from vla.models.decoders.checks import Subject, encode_one
from vla.models.decoders.proof import Check, Verdict, cached, one_line
from vla.models.decoders.proving import prove
from vla.models.decoders.tiny import default_config, tiny_fields
from vla.models.decoders.tiny_models import ProofTokenizer, tiny_model


def causal_families() -> list[str]:
    """Model types of all causal language models in transformers, sorted."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def prove_causal(config: Any) -> Verdict:
    """The verdict about a family; the proof of a second takes no time when it is in the cache.

    Args:
        config: a Hugging Face configuration, or a model type with its default fields.
    """
    family = config if isinstance(config, str) else config.model_type
    try:
        config = default_config(family) if isinstance(config, str) else config
        about = {"class": type(config).__name__, "fields": tiny_fields(config)}
    except Exception as error:  # any error of a foreign configuration class is a refusal
        return Verdict("causal", family, (Check("tiny configuration", False, one_line(error)),))
    return cached("causal", family, about, lambda: _prove(config, family))


def tiny_decoder(config: Any) -> CausalTexts:
    """A tiny decoder of the class of a configuration, without a proof."""
    lm = tiny_model(AutoModelForCausalLM, config, lambda lm, ids: lm(input_ids=ids))
    return CausalTexts.of_model(lm, ProofTokenizer())


def _prove(config: Any, family: str) -> Verdict:
    return prove("causal", family, lambda: tiny_decoder(config), _subject)


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
