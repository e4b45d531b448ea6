"""RT-1's head: every dim of every step is a choice of a bin, all made at once (arXiv 2212.06817, section 5.1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from vla.actions.bins import UniformBins
from vla.config import register
from vla.decoders.base import Decoder, Prefix
from vla.heads.base import HeadLoss, Prediction
from vla.heads.queries import ActionQueries, flat
from vla.schema import ActionSpace, RobotBatch


@register("head", "classification")
class ClassificationHead(nn.Module):
    """One query a step; a linear map gives A x bins logits.

    Args:
        bins: a dim. parallel: see ``ActionQueries``.
    """

    def __init__(self, bins: int = 256, parallel: bool = True, *, decoder: Any, action_space: ActionSpace, horizon: int) -> None:
        super().__init__()
        self.dim = action_space.dim
        self.codec = UniformBins(bins, action_dim=self.dim, horizon=horizon)
        self.queries = ActionQueries(decoder.width, horizon, parallel)
        self.norm = nn.LayerNorm(decoder.width)
        self.out = nn.Linear(decoder.width, self.dim * bins)

    def _logits(self, decoder: Decoder, prefix: Prefix, owner_K: torch.Tensor, instructions: list[str]) -> torch.Tensor:
        """(K, H, A, bins)."""
        states = self.norm(self.queries(decoder, prefix, owner_K, instructions))
        return self.out(states).unflatten(-1, (self.dim, self.codec.symbols))

    def loss(self, decoder: Decoder, prefix: Prefix, batch: RobotBatch, unit_KHA: torch.Tensor) -> HeadLoss:
        """Cross-entropy of every dim's bin, steps inside the episode only."""
        logits = self._logits(decoder, prefix, batch.owner_K, batch.instructions)
        target, best = self.codec.index(unit_KHA), logits.detach().argmax(-1)
        loss_KHA = functional.cross_entropy(logits.flatten(0, 2), target.flatten(), reduction="none").reshape(target.shape)
        right = (best == target)[batch.mask_KH].flatten()
        return HeadLoss(*flat(loss_KHA, batch.mask_KH), self.codec.value(best), right)

    def predict(self, decoder: Decoder, prefix: Prefix, instructions: list[str]) -> Prediction:
        """(B, H, A) in [-1, 1]."""
        owner = torch.arange(len(instructions), device=self.out.weight.device)
        return Prediction(self.codec.value(self._logits(decoder, prefix, owner, instructions).argmax(-1)))
