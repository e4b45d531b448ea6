"""Encoder-decoder language models (T5, UL2: the family of PaLI's decoder)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, EncoderDecoderCache

from vla.config import register
from vla.models.decoders.base import (
    CrossAttentionInput,
    DecodingState,
    Prefix,
    hidden_state_index,
    is_query_state,
    pad_targets,
)
from vla.models.decoders.language import LanguageModel, cache_arguments
from vla.models.decoders.text import encode
from vla.models.lora import LoraConfig


@register("decoder", "seq2seq")
class Seq2SeqDecoder(LanguageModel):
    """``AutoModelForSeq2SeqLM``: one encoder sequence per text (PaLI, arXiv 2209.06794).

    The encoder reads image tokens and prompt; the decoder reads the target items. Relative
    positions (T5) follow the order of the tokens.

    Raises:
        ValueError: neither model nor config is given, or ``quantize`` is set without ``lora``.
    """

    # Options of a small instance, for vla.testing.
    example: ClassVar[dict[str, Any]] = {
        "vocab_size": 800,
        "config": {
            "model_type": "t5",
            "d_model": 32,
            "d_kv": 16,
            "d_ff": 64,
            "num_layers": 1,
            "num_heads": 2,
        },
    }

    def __init__(
        self,
        # Folder, package:NAME/PATH or hub name of pretrained weights and tokenizer; null: random
        # weights.
        model: str | None = None,
        # Architecture: model_type and the fields of its configuration class. Required if model is
        # null; otherwise used where weights are not loaded (tests, vla zoo).
        config: dict[str, Any] | None = None,
        vocab_size: int = 2048,  # of the BPE tokenizer trained on the data if model is null
        ordinal_integers: bool = True,  # initialise random embeddings of integers on a curve
        frozen: bool = False,  # do not train the language model
        lora: LoraConfig | None = None,  # train low-rank adapters instead of the weights
        checkpointing: bool = False,  # recompute activations in training: less memory, slower
        # 4bit: keep the model's weights in 4 bits (QLoRA; needs model and lora). Saved policies
        # contain them in full precision.
        quantize: Literal["4bit"] | None = None,
        *,
        tokenizer: Any = None,
        pretrained: bool = True,
    ) -> None:
        if config is not None:
            config = {"decoder_start_token_id": tokenizer.pad_token_id} | config
        super().__init__(
            "seq2seq",
            model,
            config,
            tokenizer,
            pretrained,
            frozen,
            lora,
            checkpointing,
            quantize,
            ordinal_integers,
        )

    @property
    def layers(self) -> nn.ModuleList:
        """The blocks of the decoder stack, in order: its outermost module list."""
        return next(m for m in self.lm.get_decoder().modules() if isinstance(m, nn.ModuleList))

    def _encode(
        self,
        prefix: Prefix,
        image_index_K: torch.Tensor,
        prompts: Sequence[str],
        attend_image_K: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoder states (K, N + S, D), and their mask (K, N + S)."""
        device = image_index_K.device
        ids = [
            torch.tensor([*encode(self.tokenizer, p), self.tokenizer.eos_token_id]) for p in prompts
        ]
        text_KS = pad_sequence(ids, batch_first=True, padding_value=self.tokenizer.pad_token_id).to(
            device
        )
        lengths = torch.tensor([len(i) for i in ids], device=device)
        valid = torch.arange(text_KS.shape[1], device=device) < lengths[:, None]
        images = prefix.tokens_BND.index_select(0, image_index_K)
        attend = torch.ones(images.shape[:2], dtype=torch.bool, device=device)
        if attend_image_K is not None:
            attend = attend & attend_image_K[:, None]
        embeds = torch.cat([images, self.embed(text_KS).to(images.dtype)], 1)
        mask = torch.cat([attend, valid], 1)
        out = self.lm.get_encoder()(inputs_embeds=embeds, attention_mask=mask.long())
        return out.last_hidden_state, mask

    def _decode(
        self,
        encoded: torch.Tensor,
        mask: torch.Tensor,
        embeds: torch.Tensor,
        cache: Any = None,
        own_mask: torch.Tensor | None = None,
        *,
        cross_attention: dict[str, CrossAttentionInput],
    ) -> torch.Tensor:
        """Decoder states of ``embeds``; ``mask`` is that of the encoder states."""
        out = self.lm.get_decoder()(
            inputs_embeds=embeds,
            attention_mask=own_mask,
            encoder_hidden_states=encoded,
            encoder_attention_mask=mask.long(),
            **cache_arguments(self.lm.get_decoder(), cache),
            **cross_attention,
        )
        return out.last_hidden_state

    def _start_ids(self, batch_size: int, device: torch.device) -> torch.Tensor:
        return torch.full((batch_size, 1), self.lm.config.decoder_start_token_id, device=device)

    def encode_texts(
        self,
        prefix: Prefix,
        image_index_K: torch.Tensor,
        prompts: Sequence[str],
        target_ids: Sequence[Sequence[int]],
        attend_image_K: torch.Tensor | None = None,
        queries_KQD: torch.Tensor | None = None,
        parallel: bool = False,
    ) -> torch.Tensor:
        """See ``Decoder.encode_texts``."""
        device = image_index_K.device
        encoded, mask = self._encode(prefix, image_index_K, prompts, attend_image_K)
        items = pad_targets(target_ids, queries_KQD, self.tokenizer.pad_token_id)
        text_M, item_M = hidden_state_index([len(i) for i in items], device)
        padded = pad_sequence(
            [torch.tensor(i, dtype=torch.long) for i in items], batch_first=True
        ).to(device)
        ids = torch.cat([self._start_ids(len(items), device), padded], 1)
        embeds = self.embed(ids).to(encoded.dtype)
        own_mask = None
        if queries_KQD is not None:
            at_query = is_query_state(target_ids, text_M, item_M)
            index = (text_M[at_query], item_M[at_query])
            embeds = embeds.index_put(index, queries_KQD.flatten(0, 1).to(embeds.dtype))
            if parallel:
                query = torch.zeros(embeds.shape[:2], dtype=torch.bool, device=device)
                query[index] = True
                past = torch.ones((embeds.shape[1],) * 2, dtype=torch.bool, device=device).tril()
                own_mask = (past | query[:, :, None] & query[:, None, :])[:, None]
        attend = torch.ones(embeds.shape[:2], dtype=torch.bool, device=device)
        if attend_image_K is not None:
            attend = attend & attend_image_K[:, None]
        image = prefix.cross_attention_BND
        image = None if image is None else image.index_select(0, image_index_K)
        hidden = self._decode(
            encoded,
            mask,
            embeds,
            own_mask=own_mask,
            cross_attention=CrossAttentionInput.keywords(image, attend),
        )
        return hidden[text_M, item_M]

    def prefill(self, prefix: Prefix, prompts: Sequence[str]) -> tuple[DecodingState, torch.Tensor]:
        """See ``Decoder.prefill``."""
        device = prefix.tokens_BND.device
        rows = torch.arange(prefix.batch_size, device=device)
        encoded, mask = self._encode(prefix, rows, prompts, None)
        cache = EncoderDecoderCache(
            DynamicCache(config=self.lm.config), DynamicCache(config=self.lm.config)
        )
        position = torch.zeros(prefix.batch_size, dtype=torch.long, device=device)
        state = DecodingState(cache, mask, position, prefix, {"encoded": encoded})
        return state, self.decode_step(state, self._start_ids(prefix.batch_size, device)[:, 0])

    def decode_step(self, state: DecodingState, ids_B: torch.Tensor) -> torch.Tensor:
        """See ``Decoder.decode_step``."""
        encoded = state.extra["encoded"]
        attend = torch.ones((len(ids_B), 1), dtype=torch.bool, device=ids_B.device)
        hidden = self._decode(
            encoded,
            state.key_mask_BL,
            self.embed(ids_B[:, None]).to(encoded.dtype),
            state.cache,
            cross_attention=CrossAttentionInput.keywords(state.prefix.cross_attention_BND, attend),
        )
        return hidden[:, -1]
