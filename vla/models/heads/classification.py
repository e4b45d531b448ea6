"""RT-1's head: one classification per number, all in parallel (arXiv 2212.06817, section 5.1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from vla.config import register
from vla.models.actions.bins import UniformBins
from vla.models.heads.base import HeadLoss
from vla.models.heads.queries import QueryHead, valid_items
from vla.types import ActionSpace


@register("head", "classification")
class ClassificationHead(QueryHead):
    """A linear map of every step's hidden state to A x bins logits."""

    def __init__(
        self,
        bins: int = 256,  # bins per action dimension, at least 2
        parallel: bool = True,  # action queries attend to each other in both directions
        *,
        decoder: Any,
        action_space: ActionSpace,
        horizon: int,
    ) -> None:
        super().__init__(decoder, horizon, parallel)
        self.dim = action_space.dim
        self.codec = UniformBins(bins, action_dim=self.dim, horizon=horizon)
        self.out = nn.Linear(decoder.width, self.dim * bins)

    def _logits(self, states_KHD: torch.Tensor) -> torch.Tensor:
        """(K, H, A, bins)."""
        return self.out(states_KHD).unflatten(-1, (self.dim, self.codec.symbols))

    def loss_from_states(
        self, states_KHD: torch.Tensor, normalized_actions_KHA: torch.Tensor, mask_KH: torch.Tensor
    ) -> HeadLoss:
        """Cross-entropy of the bins, one value per number."""
        logits = self._logits(states_KHD)
        target, best = self.codec.index(normalized_actions_KHA), logits.detach().argmax(-1)
        loss = functional.cross_entropy(logits.flatten(0, 2), target.flatten(), reduction="none")
        loss_KHA = loss.reshape(target.shape)
        right_M = (best == target)[mask_KH].flatten()
        return HeadLoss(*valid_items(loss_KHA, mask_KH), self.codec.value(best), right_M)

    def actions_from_states(self, states_KHD: torch.Tensor) -> torch.Tensor:
        """See ``QueryHead``."""
        return self.codec.most_likely(self._logits(states_KHD))
