"""Encoder-decoder language models (T5, UL2: the family of PaLI's decoder): image and prompt are encoded, the tail is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, EncoderDecoderCache

from vla.config import register
from vla.decoders.base import Decoding, Prefix, behind_ids, states_of, tail_ids
from vla.decoders.language import LanguageModel, with_cache
from vla.decoders.text import encode
from vla.tuning import LoraConfig


@register("decoder", "seq2seq")
class Seq2SeqDecoder(LanguageModel):
    """``AutoModelForSeq2SeqLM``: one encoder sequence a text, image tokens first (PaLI, arXiv 2209.06794).

    Args: as ``CausalDecoder``. Relative positions (T5) are told by order, so images have none to choose.
    """

    whole = False

    def __init__(
        self, model: str | None = None, config: dict[str, Any] | None = None, vocab_size: int = 2048, ordinal_integers: bool = True, frozen: bool = False,
        lora: LoraConfig | None = None, checkpointing: bool = False,
        quantize: Literal["4bit"] | None = None, *, tokenizer: Any = None, pretrained: bool = True,
    ) -> None:  # fmt: skip
        if config is not None:
            config = {"decoder_start_token_id": tokenizer.pad_token_id} | config
        super().__init__("seq2seq", model, config, tokenizer, pretrained, frozen, lora, checkpointing, quantize, ordinal_integers)

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder stack's blocks, in order."""
        lists = [m for m in self.lm.get_decoder().modules() if isinstance(m, nn.ModuleList)]
        return max(lists, key=len)

    def _encode(
        self, prefix: Prefix, owner_K: torch.Tensor, prompts: Sequence[str], sees_K: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoder states (K, N + S, D) and which of them are there (K, N + S)."""
        device = owner_K.device
        ids = [torch.tensor([*encode(self.tokenizer, p), self.tokenizer.eos_token_id]) for p in prompts]
        text_KS = pad_sequence(ids, batch_first=True, padding_value=self.tokenizer.pad_token_id).to(device)
        lengths = torch.tensor([len(i) for i in ids], device=device)
        there = torch.arange(text_KS.shape[1], device=device) < lengths[:, None]
        images = prefix.tokens_BND.index_select(0, owner_K)
        shown = torch.ones(images.shape[:2], dtype=torch.bool, device=device)
        if sees_K is not None:
            shown = shown & sees_K[:, None]
        embeds = torch.cat([images, self.embed(text_KS).to(images.dtype)], 1)
        mask = torch.cat([shown, there], 1)
        return self.lm.get_encoder()(inputs_embeds=embeds, attention_mask=mask.long()).last_hidden_state, mask

    def _decode(
        self,
        encoded: torch.Tensor,
        mask: torch.Tensor,
        embeds: torch.Tensor,
        cache: Any = None,
        own_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        out = self.lm.get_decoder()(
            inputs_embeds=embeds, attention_mask=own_mask, encoder_hidden_states=encoded, encoder_attention_mask=mask.long(),
            **with_cache(self.lm.get_decoder(), cache),
        )  # fmt: skip
        return out.last_hidden_state

    def _first(self, rows: int, device: torch.device) -> torch.Tensor:
        return torch.full((rows, 1), self.lm.config.decoder_start_token_id, device=device)

    def read(
        self, prefix: Prefix, owner_K: torch.Tensor, prompts: Sequence[str], tails: Sequence[Sequence[int]], sees_K: torch.Tensor | None = None,
        queries_KQD: torch.Tensor | None = None, parallel: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        """See ``Decoder.read``."""
        device = owner_K.device
        encoded, mask = self._encode(prefix, owner_K, prompts, sees_K)
        ids = tail_ids(tails, queries_KQD, self.tokenizer.pad_token_id)
        text_M, item_M = states_of([len(t) for t in ids], device)
        padded = pad_sequence([torch.tensor(t, dtype=torch.long) for t in ids], batch_first=True).to(device)
        embeds = self.embed(torch.cat([self._first(len(ids), device), padded], 1)).to(encoded.dtype)
        own_mask = None
        if queries_KQD is not None:
            inside = behind_ids(tails, text_M, item_M)
            embeds = embeds.index_put((text_M[inside], item_M[inside]), queries_KQD.flatten(0, 1).to(embeds.dtype))
            if parallel:
                query = torch.zeros(embeds.shape[:2], dtype=torch.bool, device=device)
                query[text_M[inside], item_M[inside]] = True
                past = torch.ones((embeds.shape[1],) * 2, dtype=torch.bool, device=device).tril()
                own_mask = (past | query[:, :, None] & query[:, None, :])[:, None]
        sees = torch.ones(embeds.shape[:2], dtype=torch.bool, device=device)
        if sees_K is not None:
            sees = sees & sees_K[:, None]
        memory = None if prefix.memory_BMD is None else prefix.memory_BMD.index_select(0, owner_K)
        with self.looking(memory, sees):
            hidden = self._decode(encoded, mask, embeds, own_mask=own_mask)
        return hidden[text_M, item_M]

    def start(self, prefix: Prefix, prompts: Sequence[str]) -> tuple[Decoding, torch.Tensor]:
        """See ``Decoder.start``."""
        device = prefix.tokens_BND.device
        encoded, mask = self._encode(prefix, torch.arange(prefix.rows, device=device), prompts, None)
        cache = EncoderDecoderCache(DynamicCache(config=self.lm.config), DynamicCache(config=self.lm.config))
        state = Decoding(cache, mask, torch.zeros(prefix.rows, dtype=torch.long, device=device), prefix, {"encoded": encoded})
        return state, self.step(state, self._first(prefix.rows, device)[:, 0])

    def step(self, state: Decoding, ids_B: torch.Tensor) -> torch.Tensor:
        """See ``Decoder.step``."""
        encoded = state.extra["encoded"]
        sees = torch.ones((len(ids_B), 1), dtype=torch.bool, device=ids_B.device)
        with self.looking(state.prefix.memory_BMD, sees):
            hidden = self._decode(encoded, state.keys_BL, self.embed(ids_B[:, None]).to(encoded.dtype), state.cache)
        return hidden[:, -1]
