"""Texts in an encoder-decoder language model: one encoder sequence per text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from vla.errors import DataError
from vla.models.decoders.backbone import learned_positions
from vla.models.decoders.base import (
    CrossAttentionInput,
    DecodingState,
    Prefix,
    hidden_state_index,
    is_query_state,
    pad_targets,
)
from vla.models.decoders.language import cache_arguments
from vla.models.decoders.masks import both_directions
from vla.models.decoders.own_forward import (
    drop_last_columns,
    new_cache,
    start_token,
    writing_embedding,
)
from vla.models.decoders.separate import TextDecoder
from vla.models.decoders.text import encode, text_too_long


class Seq2SeqTexts(TextDecoder):
    """An encoder-decoder model that implements ``Decoder``; see ``Seq2SeqDecoder``."""

    keeps_rows_apart = False  # relative positions follow the columns

    @property
    def layers(self) -> nn.ModuleList:
        """The blocks of the decoder stack, in order: its outermost module list."""
        return next(m for m in self.lm.get_decoder().modules() if isinstance(m, nn.ModuleList))

    @cached_property
    def _position_rows(self) -> int | None:
        return learned_positions(self.lm.get_encoder())

    def _read(
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
        if self._position_rows is not None and embeds.shape[1] > self._position_rows:
            room = self._position_rows - images.shape[1]
            raise DataError(text_too_long(int(lengths.max()), room))
        mask = torch.cat([attend, valid], 1)
        out = self.lm.get_encoder()(inputs_embeds=embeds, attention_mask=mask.long())
        return out.last_hidden_state, mask

    def _decode(
        self,
        encoded: torch.Tensor,
        mask: torch.Tensor,
        embeds: torch.Tensor,
        cache: Any = None,
        parallel_KL: torch.Tensor | None = None,
        *,
        cross_attention: dict[str, CrossAttentionInput],
    ) -> torch.Tensor:
        """Decoder states of ``embeds``; ``mask`` is that of the encoder states."""
        with both_directions(parallel_KL):
            out = self.lm.get_decoder()(
                inputs_embeds=embeds,
                encoder_hidden_states=encoded,
                encoder_attention_mask=mask.long(),
                **cache_arguments(self.lm.get_decoder(), cache),
                **cross_attention,
            )
        return out.last_hidden_state

    def _embed_items(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids (K, L) to embeddings of the decoder, which may have its own (T5Gemma)."""
        embeds = writing_embedding(self.lm)(ids)
        trainable = self.trainable_embeddings
        return embeds if trainable is None else trainable.embed(ids, embeds)

    def _start_ids(self, batch_size: int, device: torch.device) -> torch.Tensor:
        start = start_token(self.lm, self.tokenizer)
        assert start is not None, "an encoder-decoder model has a first token"
        return torch.full((batch_size, 1), start, device=device)

    def _encode(
        self,
        prefix: Prefix,
        image_index_K: torch.Tensor,
        prompts: Sequence[str],
        target_ids: Sequence[Sequence[int]],
        attend_image_K: torch.Tensor | None,
        queries_KQD: torch.Tensor | None,
        parallel: bool,
    ) -> torch.Tensor:
        """See ``TextDecoder``."""
        device = image_index_K.device
        encoded, mask = self._read(prefix, image_index_K, prompts, attend_image_K)
        items = pad_targets(target_ids, queries_KQD, self.tokenizer.pad_token_id)
        text_M, item_M = hidden_state_index([len(i) for i in items], device)
        padded = pad_sequence(
            [torch.tensor(i, dtype=torch.long) for i in items], batch_first=True
        ).to(device)
        ids = torch.cat([self._start_ids(len(items), device), padded], 1)
        embeds = self._embed_items(ids).to(encoded.dtype)
        parallel_KL = None
        if queries_KQD is not None:
            at_query = is_query_state(target_ids, text_M, item_M)
            index = (text_M[at_query], item_M[at_query])
            embeds = embeds.index_put(index, queries_KQD.flatten(0, 1).to(embeds.dtype))
            if parallel:
                parallel_KL = torch.zeros(embeds.shape[:2], dtype=torch.bool, device=device)
                parallel_KL[index] = True
        attend = torch.ones(embeds.shape[:2], dtype=torch.bool, device=device)
        if attend_image_K is not None:
            attend = attend & attend_image_K[:, None]
        image = prefix.cross_attention_BND
        image = None if image is None else image.index_select(0, image_index_K)
        hidden = self._decode(
            encoded,
            mask,
            embeds,
            parallel_KL=parallel_KL,
            cross_attention=CrossAttentionInput.keywords(image, attend),
        )
        return hidden[text_M, item_M]

    def _prefill(
        self, prefix: Prefix, prompts: Sequence[str], proposals: Sequence[Sequence[int]]
    ) -> tuple[DecodingState, torch.Tensor]:
        """See ``TextDecoder``."""
        device = prefix.tokens_BND.device
        rows = torch.arange(prefix.batch_size, device=device)
        encoded, mask = self._read(prefix, rows, prompts, None)
        cache = new_cache(self.lm)
        position = torch.zeros(prefix.batch_size, dtype=torch.long, device=device)
        state = DecodingState(cache, mask, position, prefix, {"encoded": encoded})
        new = pad_sequence([torch.tensor(p, dtype=torch.long) for p in proposals], True).to(device)
        ids = torch.cat([self._start_ids(prefix.batch_size, device), new], 1)
        hidden = self._decode_step(state, ids)
        state.extra["new"] = new.shape[1]
        return state, hidden

    def _decode_step(self, state: DecodingState, ids_BL: torch.Tensor) -> torch.Tensor:
        """See ``TextDecoder``."""
        encoded = state.extra["encoded"]
        state.extra["new"] = ids_BL.shape[1]
        return self._decode(
            encoded,
            state.key_mask_BL,
            self._embed_items(ids_BL).to(encoded.dtype),
            state.cache,
            cross_attention=CrossAttentionInput.keywords(
                state.prefix.cross_attention_BND, torch.ones_like(ids_BL, dtype=torch.bool)
            ),
        )

    def keep(self, state: DecodingState, count_B: torch.Tensor) -> None:
        """See ``Decoder.keep``; the counts are equal."""
        drop_last_columns(state.cache, state.extra["new"] - int(count_B.max()))
