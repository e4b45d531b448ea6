"""Mixture density: several Gaussians a step, for demonstrations that do one of several things (Bishop 1994; Open-X's mixture baselines)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from vla.config import register
from vla.decoders.base import Decoder, Prefix
from vla.heads.base import HeadLoss, Prediction
from vla.heads.queries import ActionQueries, binary_mask, decide, flat
from vla.schema import ActionSpace, RobotBatch


@register("head", "mixture")
class MixtureHead(nn.Module):
    """``modes`` diagonal Gaussians over a step's numbers, decisions by classification; acting takes the likeliest mode's mean.

    Args:
        modes: of the mixture. floor: smallest standard deviation in normalised units: it bounds the likelihood and, with it, how far numbers
        outweigh decisions (at 0.01 "terminate" was not learned even by heart: experiments/heads_overfit, LOG.md). parallel: see ``ActionQueries``.
    """

    def __init__(
        self, modes: int = 5, floor: float = 0.05, parallel: bool = True, *, decoder: Any, action_space: ActionSpace, horizon: int
    ) -> None:
        super().__init__()
        if modes < 1 or floor <= 0:
            raise ValueError(f"head: modes={modes} must be at least 1 and floor={floor} above 0")
        self.modes, self.floor, self.dim = modes, floor, action_space.dim
        self.queries = ActionQueries(decoder.width, horizon, parallel)
        self.norm = nn.LayerNorm(decoder.width)
        self.out = nn.Linear(decoder.width, modes * (1 + 2 * self.dim))
        self.choose = nn.Linear(decoder.width, self.dim)
        self.register_buffer("binary_A", binary_mask(action_space), persistent=False)
        self.binary_A: torch.Tensor

    def _mixture(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log weights (K, H, G), means and standard deviations (K, H, G, A)."""
        raw = self.out(states)
        weight, rest = raw[..., : self.modes], raw[..., self.modes :].unflatten(-1, (2, self.modes, self.dim))
        return weight.log_softmax(-1), rest[..., 0, :, :], functional.softplus(rest[..., 1, :, :]) + self.floor

    def _unit(self, weight: torch.Tensor, mean: torch.Tensor, choice: torch.Tensor) -> torch.Tensor:
        best = weight.argmax(-1)[..., None, None].expand(*weight.shape[:-1], 1, self.dim)
        return torch.where(self.binary_A, decide(choice), mean.gather(-2, best).squeeze(-2)).clamp(-1, 1)

    def loss(self, decoder: Decoder, prefix: Prefix, batch: RobotBatch, unit_KHA: torch.Tensor) -> HeadLoss:
        """Negative log likelihood of a step's numbers (a density: it may be negative) plus its decisions', one value a step."""
        states = self.norm(self.queries(decoder, prefix, batch.owner_K, batch.instructions))
        weight, mean, deviation = self._mixture(states)
        z = (unit_KHA[..., None, :] - mean) / deviation
        density = (-0.5 * z * z - deviation.log() - 0.5 * math.log(2 * math.pi)).masked_fill(self.binary_A, 0.0).sum(-1)
        numbers = -(weight + density).logsumexp(-1)
        choice = self.choose(states)
        decisions = functional.binary_cross_entropy_with_logits(choice, (unit_KHA > 0).float(), reduction="none")
        loss_KH = numbers + decisions.masked_fill(~self.binary_A, 0.0).sum(-1)
        return HeadLoss(*flat(loss_KH, batch.mask_KH), self._unit(weight, mean, choice).detach())

    def predict(self, decoder: Decoder, prefix: Prefix, instructions: list[str]) -> Prediction:
        """(B, H, A) in [-1, 1]."""
        owner = torch.arange(len(instructions), device=self.binary_A.device)
        states = self.norm(self.queries(decoder, prefix, owner, instructions))
        weight, mean, _ = self._mixture(states)
        return Prediction(self._unit(weight, mean, self.choose(states)))
