"""Embeddings of action tokens that learn although the language model around them is frozen or only adapted."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class LearnedRows(nn.Module):
    """Some rows of the input embedding and of the output layer, as parameters of their own (one and the same where the model ties them).

    Args:
        ids: token ids whose rows learn.
    """

    def __init__(self, lm: Any, ids: list[int]) -> None:
        super().__init__()
        self.register_buffer("ids", torch.tensor(sorted(ids)), persistent=False)
        self.ids: torch.Tensor
        source, target = lm.get_input_embeddings(), lm.get_output_embeddings()
        self.scale = float(getattr(source, "scalar_embed_scale", 1.0))  # Gemma 3 scales what it looks up
        self.read = nn.Parameter(source.weight.detach()[self.ids].clone())
        tied = target.weight is source.weight
        self.write = self.read if tied else nn.Parameter(target.weight.detach()[self.ids].clone())

    def _find(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(place among our rows, whether it is one of them)."""
        place = torch.searchsorted(self.ids, ids).clamp(max=len(self.ids) - 1)
        return place, self.ids[place] == ids

    def embed(self, ids: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
        """Embeddings (..., D) with ours in place."""
        place, ours = self._find(ids)
        return torch.where(ours[..., None], (self.read[place] * self.scale).to(embeds.dtype), embeds)

    def logits(
        self, hidden: torch.Tensor, logits: torch.Tensor, ids: torch.Tensor | None, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """Logits (..., vocabulary or len(ids)) with ours in place."""
        if ids is None:
            columns, known, rows = self.ids, self.ids, self.write[:]
        else:
            place, ours = self._find(ids)
            columns, known, rows = ours.nonzero()[:, 0], ids[ours], self.write[place[ours]]
        own = nn.functional.linear(hidden, rows.to(hidden.dtype), None if bias is None else bias[known])
        return logits.index_copy(-1, columns, own.to(logits.dtype))
