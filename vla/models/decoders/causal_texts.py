"""Packed texts about images in the sequences of a causal language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer blocks, in order."""
        lists = [m for m in self.lm.base_model.modules() if isinstance(m, nn.ModuleList)]
        return max(lists, key=len)

    @property
    def max_text_tokens(self) -> int | None:
        """Tokens that a prompt and its answer may have; None if no table of positions limits them.

        With ``image_positions: each``, the tokens of the image count too.
        """
        if (rows := learned_positions(self.lm)) is None:
            return None
        return rows - (self.bos is not None) - (self.image_positions == "shared")

    def _check_length(self, texts: Sequence[Sequence[int]], positions_N: torch.Tensor) -> None:
        """DataError if a text after the prefix has a position outside of the model's table."""
        longest = max(map(len, texts), default=0)
        used = int(positions_N[-1]) + 1 if len(positions_N) else 0
        rows = learned_positions(self.lm)
        if rows is not None and used + longest > rows:
            raise DataError(text_too_long(longest, rows - used))

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
        count = tokens.shape[1]
        if self.image_positions == "each":
            positions = torch.arange(count)
        else:
            positions = torch.zeros(count, dtype=torch.long)
        if self.bos is None:
            return tokens, positions
        bos = self.embed(torch.full((len(tokens), 1), self.bos, device=tokens.device))
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
        self, prefix: Prefix, prompts: Sequence[str]
    ) -> tuple[DecodingState, torch.Tensor]:
        """See ``TextDecoder``."""
        texts = [encode(self.tokenizer, p) for p in prompts]
        before, positions = self._embed_prefix(prefix)
        self._check_length(texts, positions)
        rows = torch.arange(prefix.batch_size, device=before.device)
        packed = pack_texts(
            texts,
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
        last = before.shape[1] + torch.tensor([len(t) for t in texts], device=before.device) - 1
        # Without attend_image_K, True marks all positions that are not padding.
        state = DecodingState(
            cache,
            packed.attend_image_BL,
            packed.positions_BL[rows, last] + 1,
            prefix,
            {"index_BT": packed.structure.index_BT, "last_B": last},
        )
        return state, hidden[rows, last]

    def _decode_step(self, state: DecodingState, ids_B: torch.Tensor) -> torch.Tensor:
        """See ``TextDecoder``."""
        one = torch.ones_like(ids_B[:, None], dtype=torch.bool)
        state.key_mask_BL = torch.cat([state.key_mask_BL, one], 1)
        index, last = state.extra["index_BT"], state.extra["last_B"]
        following = index.gather(1, last[:, None]) + 1
        state.extra |= {
            "index_BT": torch.cat([index, following], 1),
            "last_B": torch.full_like(last, index.shape[1]),
        }
        hidden, state.cache = self(
            self.embed(ids_B[:, None]).to(state.prefix.tokens_BND.dtype),
            TextStructure(state.extra["index_BT"], state.key_mask_BL[:, None]),
            state.next_position_B[:, None],
            state.cache,
            use_cache=True,
            **CrossAttentionInput.keywords(state.prefix.cross_attention_BND, one),
        )
        state.next_position_B = state.next_position_B + 1
        return hidden[:, -1]
