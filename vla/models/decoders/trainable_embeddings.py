"""Trainable embeddings of action tokens around a frozen or LoRA-adapted language model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class TrainableEmbeddings(nn.Module):
    """Rows of the input and output embeddings as separate parameters.

    Where the model ties both embeddings, they are one parameter here, too.

    Args:
        ids: token ids whose embeddings are trained.
    """

    def __init__(self, lm: Any, ids: list[int]) -> None:
        super().__init__()
        self.register_buffer("ids", torch.tensor(sorted(ids)), persistent=False)
        self.ids: torch.Tensor
        source, target = lm.get_input_embeddings(), lm.get_output_embeddings()
        self.scale = float(getattr(source, "scalar_embed_scale", 1.0))  # Gemma 3 scales embeddings
        self.input_embeddings = nn.Parameter(source.weight.detach()[self.ids].clone())
        tied = target.weight is source.weight
        self.output_embeddings = (
            self.input_embeddings
            if tied
            else nn.Parameter(target.weight.detach()[self.ids].clone())
        )

    @torch.no_grad()
    def copy_from(self, lm: Any) -> None:
        """Take the rows from the language model, whose weights were loaded since."""
        self.input_embeddings.copy_(lm.get_input_embeddings().weight[self.ids])
        self.output_embeddings.copy_(lm.get_output_embeddings().weight[self.ids])

    def _find(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(index among the trainable ids, True where an id is one of them)."""
        index = torch.searchsorted(self.ids, ids).clamp(max=len(self.ids) - 1)
        return index, self.ids[index] == ids

    def embed(self, ids: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
        """Embeddings (..., D) with the trainable rows replaced."""
        index, own = self._find(ids)
        rows = (self.input_embeddings[index] * self.scale).to(embeds.dtype)
        return torch.where(own[..., None], rows, embeds)

    def logits(
        self,
        hidden: torch.Tensor,
        logits: torch.Tensor,
        ids: torch.Tensor | None,
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
        """Logits (..., vocabulary or len(ids)) with those of the trainable ids replaced."""
        if ids is None:
            columns, known, rows = self.ids, self.ids, self.output_embeddings[:]
        else:
            index, own = self._find(ids)
            columns, known = own.nonzero()[:, 0], ids[own]
            rows = self.output_embeddings[index[own]]
        replaced = nn.functional.linear(
            hidden, rows.to(hidden.dtype), None if bias is None else bias[known]
        )
        return logits.index_copy(-1, columns, replaced.to(logits.dtype))
