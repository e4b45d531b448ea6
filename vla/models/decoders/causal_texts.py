"""Packed texts about images in the sequences of a causal language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import nn

from vla.errors import DataError
from vla.models.decoders.backbone import learned_positions, new_cache, run_backbone
from vla.models.decoders.base import (
    CrossAttentionInput,
    DecodingState,
    Prefix,
    hidden_state_index,
    is_query_state,
    pad_targets,
)
from vla.models.decoders.masks import TextStructure
from vla.models.decoders.packing import pack_texts
from vla.models.decoders.separate import TextDecoder
from vla.models.decoders.static_cache import StaticDecoding
from vla.models.decoders.text import encode, text_too_long


class CausalTexts(TextDecoder):
    """A causal language model that implements ``Decoder``; see ``CausalDecoder`` for its options.

    Packed texts about an image share one sequence.

    bos: token that stands first, or None.
    """

    pads_right = True
    bos: int | None = None
    image_positions: Literal["shared", "each"] = "shared"
    image_attention: Literal["full", "causal"] = "full"
    static: StaticDecoding | None = None  # fast decoding of one row, see vla.inference.engine

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer blocks, in order."""
        modules = self.lm.base_model.modules()
        return max((m for m in modules if isinstance(m, nn.ModuleList)), key=len)

    @property
    def max_text_tokens(self) -> int | None:
        """Tokens that a prompt and its answer may have; None if no table of positions limits them.

        With ``image_positions: each``, the tokens of the image count too.
        """
        rows, others = self._position_rows, (self.bos is not None, self.image_positions == "shared")
        return None if rows is None else rows - sum(others)

    def _check_length(self, texts: Sequence[Sequence[int]], positions_N: torch.Tensor) -> None:
        """DataError if a text after the prefix has a position outside of the model's table."""
        used = int(positions_N[-1]) + 1 if len(positions_N) else 0
        self.check_positions(used + max(map(len, texts), default=0))

    @cached_property
    def _position_rows(self) -> int | None:
        return learned_positions(self.lm)

    def check_positions(self, end: int) -> None:
        """DataError if a sequence has ``end`` positions and the model's table has fewer."""
        if self._position_rows is not None and end > self._position_rows:
            raise DataError(text_too_long(end, self._position_rows))

    def forward(
        self,
        embeds_BLD: torch.Tensor,
        structure: TextStructure,
        positions_BL: torch.Tensor,
        cache: Any = None,
        use_cache: bool = False,
        **cross_attention: CrossAttentionInput,
    ) -> tuple[torch.Tensor, Any]:
        """See ``run_backbone``."""
        return run_backbone(
            self.lm, embeds_BLD, structure, positions_BL, cache, use_cache, **cross_attention
        )

    def _embed_prefix(self, prefix: Prefix) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings (B, N, D) before the texts, and their positions (N,)."""
        tokens = prefix.tokens_BND
        positions = torch.arange(tokens.shape[1])
        if self.image_positions == "shared":
            positions = torch.zeros_like(positions)
        if self.bos is None:
            return tokens, positions
        bos = self.embed(torch.full((tokens.shape[0], 1), self.bos, device=tokens.device))
        first = torch.zeros(1, dtype=torch.long)
        return torch.cat([bos.to(tokens.dtype), tokens], 1), torch.cat([first, positions + 1])

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
        """See ``TextDecoder``: K texts in B sequences."""
        hidden_image = attend_image_K is not None and not bool(attend_image_K.any())
        if self.execution == "separate" and hidden_image:  # recurrent layers have no mask
            prefix = replace(prefix, tokens_BND=prefix.tokens_BND[:, :0])
        before, positions = self._embed_prefix(prefix)
        prompt_ids = [encode(self.tokenizer, p) for p in prompts]
        items = pad_targets(target_ids, queries_KQD, self.tokenizer.pad_token_id)
        lengths = [len(p) for p in prompt_ids]
        whole = [p + i for p, i in zip(prompt_ids, items, strict=True)]
        self._check_length(whole, positions)
        queries_from = [n + len(t) for n, t in zip(lengths, target_ids, strict=True)]
        packed = pack_texts(
            whole,
            image_index_K,
            prefix.batch_size,
            positions,
            self.tokenizer.pad_token_id,
            attend_image_K,
            queries_from if parallel else None,
            self.image_attention == "causal",
        )
        embeds = self.embed(packed.ids_BS).to(before.dtype)
        text_M, item_M = hidden_state_index([len(i) for i in items], image_index_K.device)
        row_M = image_index_K[text_M]
        targets_from_K = packed.starts_K + torch.tensor(lengths, device=image_index_K.device)
        column_M = targets_from_K[text_M] - 1 + item_M
        if queries_KQD is not None:
            at_query = is_query_state(target_ids, text_M, item_M)
            embeds = embeds.index_put(
                (row_M[at_query], column_M[at_query]), queries_KQD.flatten(0, 1).to(embeds.dtype)
            )
        hidden, _ = self(
            torch.cat([before, embeds], 1),
            packed.structure,
            packed.positions_BL,
            **CrossAttentionInput.keywords(prefix.cross_attention_BND, packed.attend_image_BL),
        )
        return hidden[:, before.shape[1] :][row_M, column_M]

    def _prefill(
        self, prefix: Prefix, prompts: Sequence[str], proposals: Sequence[Sequence[int]]
    ) -> tuple[DecodingState, torch.Tensor]:
        """See ``TextDecoder``."""
        if self.static is not None and len(prompts) == 1 and not self.training:
            begun = self.static.prefill(prefix, prompts[0], proposals[0])
            if begun is not None:
                return begun
        return self.ordinary_prefill(prefix, prompts, proposals)

    def ordinary_prefill(
        self, prefix: Prefix, prompts: Sequence[str], proposals: Sequence[Sequence[int]]
    ) -> tuple[DecodingState, torch.Tensor]:
        """``prefill`` with a cache that grows."""
        texts = [encode(self.tokenizer, p) for p in prompts]
        before, positions = self._embed_prefix(prefix)
        self._check_length(texts, positions)
        rows = torch.arange(prefix.batch_size, device=before.device)
        packed = pack_texts(
            [text + list(some) for text, some in zip(texts, proposals, strict=True)],
            rows,
            prefix.batch_size,
            positions,
            self.tokenizer.pad_token_id,
            causal_prefix=self.image_attention == "causal",
        )
        hidden, cache = self(
            torch.cat([before, self.embed(packed.ids_BS).to(before.dtype)], 1),
            packed.structure,
            packed.positions_BL,
            new_cache(self.lm, self.execution),
            use_cache=True,
            **CrossAttentionInput.keywords(prefix.cross_attention_BND, packed.attend_image_BL),
        )
        lengths = torch.tensor([len(t) for t in texts], device=before.device)
        first, count = before.shape[1] + lengths, max(map(len, proposals))
        columns = first[:, None] - 1 + torch.arange(count + 1, device=before.device)
        columns = columns.clamp(max=hidden.shape[1] - 1)  # of shorter proposals
        # Without attend_image_K, True marks all positions that are not padding.
        state = DecodingState(
            cache,
            packed.attend_image_BL,
            packed.positions_BL[rows, first - 1] + 1,
            prefix,
            {"index_BT": packed.structure.index_BT, "last_B": first - 1},
        )
        counts = torch.tensor([len(p) for p in proposals], device=before.device)
        self._new_tokens(state, first, counts)
        return state, hidden[rows[:, None], columns]

    def _new_tokens(
        self, state: DecodingState, first_B: torch.Tensor, count_B: torch.Tensor
    ) -> None:
        """Note that ``count_B`` tokens of each row were read, from column ``first_B`` on."""
        state.extra |= {
            "first_B": first_B,
            "before_B": state.extra["last_B"],
            "start_B": state.next_position_B,
        }
        self.keep(state, count_B)

    def begin_pass(self, state: DecodingState, count: int) -> None:
        """Count only the last ``count`` tokens of a row as those of the last pass."""
        extra = state.extra
        earlier = extra["last_B"] + 1 - count - extra["first_B"]
        extra["first_B"] = extra["first_B"] + earlier
        extra["before_B"] = extra["first_B"] - 1
        extra["start_B"] = extra["start_B"] + earlier

    def keep(self, state: DecodingState, count_B: torch.Tensor) -> None:
        """See ``Decoder.keep``."""
        if isinstance(state.cache, StaticDecoding):
            return state.cache.keep(state, count_B)
        extra, mask = state.extra, state.key_mask_BL
        end = extra["first_B"] + count_B
        state.key_mask_BL = mask & (torch.arange(mask.shape[1], device=mask.device) < end[:, None])
        state.next_position_B = extra["start_B"] + count_B
        # A row that keeps no new token continues after its last one.
        extra["last_B"] = torch.where(count_B > 0, end - 1, extra["before_B"])

    def _decode_step(self, state: DecodingState, ids_BL: torch.Tensor) -> torch.Tensor:
        """See ``TextDecoder``."""
        if isinstance(state.cache, StaticDecoding):
            return state.cache.decode_step(state, ids_BL)
        self.check_positions(int(state.next_position_B.max()) + ids_BL.shape[1])
        new = torch.ones_like(ids_BL, dtype=torch.bool)
        state.key_mask_BL = torch.cat([state.key_mask_BL, new], 1)
        index, last = state.extra["index_BT"], state.extra["last_B"]
        offset = torch.arange(ids_BL.shape[1], device=ids_BL.device)
        following = index.gather(1, last[:, None]) + 1 + offset
        state.extra["index_BT"] = torch.cat([index, following], 1)
        visible = state.key_mask_BL[:, None].expand(-1, ids_BL.shape[1], -1)
        hidden, state.cache = self(
            self.embed(ids_BL).to(state.prefix.tokens_BND.dtype),
            TextStructure(state.extra["index_BT"], visible),
            state.next_position_B[:, None] + offset,
            state.cache,
            use_cache=True,
            **CrossAttentionInput.keywords(state.prefix.cross_attention_BND, new),
        )
        self._new_tokens(state, torch.full_like(last, index.shape[1]), new.sum(1))
        return hidden
