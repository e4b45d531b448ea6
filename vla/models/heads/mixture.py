"""Mixture density network (Bishop 1994): Gaussians per step, for multimodal demonstrations."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from vla.config import register
from vla.models.heads.base import HeadLoss
from vla.models.heads.queries import QueryHead, binary_action, binary_mask, bounded, valid_items
from vla.types import ActionSpace


@register("head", "mixture")
class MixtureHead(QueryHead):
    """Diagonal Gaussians over a step's numbers, and classification of binary dimensions.

    The prediction is the mean of the most likely mode.

    Raises:
        ValueError: an option is outside its range.
    """

    def __init__(
        self,
        modes: int = 5,  # Gaussians per step, at least 1
        # Smallest standard deviation, normalised units, above 0. It bounds the likelihood, and so
        # the weight of numbers against binary dimensions: 0.01 prevents learning "terminate".
        floor: float = 0.05,
        parallel: bool = True,  # action queries attend to each other in both directions
        *,
        decoder: Any,
        action_space: ActionSpace,
        horizon: int,
    ) -> None:
        super().__init__(decoder, horizon, parallel)
        if modes < 1 or floor <= 0:
            raise ValueError(f"head: modes={modes} must be at least 1 and floor={floor} above 0")
        self.modes, self.floor, self.dim = modes, floor, action_space.dim
        self.out = nn.Linear(decoder.width, modes * (1 + 2 * self.dim))
        self.binary = nn.Linear(decoder.width, self.dim)
        self.register_buffer("binary_A", binary_mask(action_space), persistent=False)
        self.binary_A: torch.Tensor

    def _mixture(self, states_KHD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log weights (K, H, G), means and standard deviations (K, H, G, A) of G modes."""
        raw = self.out(states_KHD)
        log_weight = raw[..., : self.modes].log_softmax(-1)
        parameters = raw[..., self.modes :].unflatten(-1, (2, self.modes, self.dim))
        mean, deviation = parameters[..., 0, :, :], parameters[..., 1, :, :]
        return log_weight, mean, functional.softplus(deviation) + self.floor

    def _actions(
        self, log_weight: torch.Tensor, mean: torch.Tensor, binary_logit: torch.Tensor
    ) -> torch.Tensor:
        best = log_weight.argmax(-1)[..., None, None].expand(*log_weight.shape[:-1], 1, self.dim)
        numbers = mean.gather(-2, best).squeeze(-2)
        numbers = torch.where(log_weight.isnan().any(-1, keepdim=True), torch.nan, numbers)
        return bounded(torch.where(self.binary_A, binary_action(binary_logit), numbers))

    def loss_from_states(
        self, states_KHD: torch.Tensor, normalized_actions_KHA: torch.Tensor, mask_KH: torch.Tensor
    ) -> HeadLoss:
        """Negative log-likelihood of a step, one value per step; a density may make it negative."""
        log_weight, mean, deviation = self._mixture(states_KHD)
        z = (normalized_actions_KHA[..., None, :] - mean) / deviation
        log_density = -0.5 * z * z - deviation.log() - 0.5 * math.log(2 * math.pi)
        log_density = log_density.masked_fill(self.binary_A, 0.0).sum(-1)
        numbers = -(log_weight + log_density).logsumexp(-1)
        logit = self.binary(states_KHD)
        binary = functional.binary_cross_entropy_with_logits(
            logit, (normalized_actions_KHA > 0).float(), reduction="none"
        )
        loss_KH = numbers + binary.masked_fill(~self.binary_A, 0.0).sum(-1)
        actions = self._actions(log_weight, mean, logit).detach()
        return HeadLoss(*valid_items(loss_KH, mask_KH), actions)

    def actions_from_states(self, states_KHD: torch.Tensor) -> torch.Tensor:
        """See ``QueryHead``."""
        log_weight, mean, _ = self._mixture(states_KHD)
        return self._actions(log_weight, mean, self.binary(states_KHD))
