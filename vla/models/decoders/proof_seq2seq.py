"""The start-up proof of encoder-decoder language models."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

from vla.models.decoders.base import Prefix
from vla.models.decoders.checks import Failed, Subject, encode_one
from vla.models.decoders.own_forward import start_token
from vla.models.decoders.proof import Verdict
from vla.models.decoders.proving import prove_language
from vla.models.decoders.seq2seq_texts import Seq2SeqTexts
from vla.models.decoders.tiny_models import ProofTokenizer, tiny_model


def seq2seq_families() -> list[str]:
    """Model types of all models of ``AutoModelForSeq2SeqLM``, sorted."""
    return sorted(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)


def prove_seq2seq(config: Any) -> Verdict:
    """The verdict about a family, see ``prove_language``."""
    return prove_language("seq2seq", config, tiny_decoder, _subject)


def tiny_decoder(config: Any) -> Seq2SeqTexts:
    """A tiny decoder of the class of a configuration, without a proof."""
    if not config.is_encoder_decoder:
        raise Failed("this model has no encoder")
    lm = tiny_model(
        AutoModelForSeq2SeqLM, config, lambda lm, ids: lm(input_ids=ids, decoder_input_ids=ids)
    )
    return Seq2SeqTexts.of_model(lm, ProofTokenizer())


def _subject(decoder: Seq2SeqTexts) -> Subject:
    images = Prefix(torch.randn(2, 4, decoder.width))

    def own(row: Prefix, prompt: str, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        tokenizer = decoder.tokenizer
        text = torch.tensor([[*tokenizer.encode(prompt), tokenizer.eos_token_id]])
        written = torch.tensor([[start_token(decoder.lm, tokenizer), *ids]])
        given = {"input_ids": text, "decoder_input_ids": written}
        theirs = decoder.lm(**given, use_cache=False).logits[0]
        ours = decoder.logits(encode_one(decoder, row, prompt, ids))
        return ours, theirs[:, : ours.shape[-1]]

    empty = Prefix(images.tokens_BND[:1, :0])
    return Subject(decoder, images, images, own, (empty,))
