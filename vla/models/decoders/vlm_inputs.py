"""Inputs of vision-language models: padded prompts with target items, and the attention mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass
class VLMInputs:
    """K padded sequences of L tokens: prompt with image tokens, then target items.

    ids_KL: token ids.
    kinds_KL: token types (text or image), 0 for families that have none.
    prompt_lengths_K: tokens of the prompt.
    valid_KL: bool, False for padding.
    query_KL: bool, True for queries.
    """

    ids_KL: torch.Tensor
    kinds_KL: torch.Tensor
    prompt_lengths_K: torch.Tensor
    valid_KL: torch.Tensor
    query_KL: torch.Tensor

    def mask(
        self,
        bidirectional_prompt: bool,
        parallel: bool,
        attend_image_K: torch.Tensor | None,
        image_token: int,
    ) -> torch.Tensor:
        """Bool mask (K, L, L), True where a position (row) may attend to another (column)."""
        column = torch.arange(self.ids_KL.shape[1], device=self.ids_KL.device)
        mask = (column[:, None] >= column[None, :]).expand(len(self.ids_KL), -1, -1)
        if bidirectional_prompt:
            prompt = column[None] < self.prompt_lengths_K[:, None]
            mask = mask | (prompt[:, :, None] & prompt[:, None, :])
        if parallel:
            mask = mask | (self.query_KL[:, :, None] & self.query_KL[:, None, :])
        if attend_image_K is not None:
            image = self.ids_KL == image_token
            hidden = image[:, None, :] & ~image[:, :, None] & ~attend_image_K[:, None, None]
            mask = mask & ~hidden
        # Padding attends to itself, so that no row of the mask is empty.
        return mask & self.valid_KL[:, None, :] | torch.eye(
            len(column), dtype=torch.bool, device=column.device
        )


def append_items(
    processed: dict[str, torch.Tensor],
    items: Sequence[Sequence[int]],
    target_ids: Sequence[Sequence[int]],
    pad: int,
) -> VLMInputs:
    """Append ``items`` (target ids and padding for queries) to the prompts of the processor."""
    device = processed["attention_mask"].device
    lengths = processed["attention_mask"].sum(1)
    counts = torch.tensor([len(i) for i in items], device=device)
    targets = torch.tensor([len(t) for t in target_ids], device=device)
    column = torch.arange(int((lengths + counts).max()), device=device)[None]
    ids = torch.full((len(items), column.shape[1]), pad, device=device)
    kinds = torch.zeros_like(ids)
    for k, (n, item) in enumerate(zip(lengths.tolist(), items, strict=True)):
        ids[k, :n] = processed["input_ids"][k, :n]
        ids[k, n : n + len(item)] = torch.tensor(item, dtype=torch.long, device=device)
        if "mm_token_type_ids" in processed:
            kinds[k, :n] = processed["mm_token_type_ids"][k, :n]
    valid = column < (lengths + counts)[:, None]
    query = valid & (column >= (lengths + targets)[:, None])
    return VLMInputs(ids, kinds, lengths, valid, query)
