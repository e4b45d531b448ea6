"""Regression of numbers and classification of binary dimensions (OpenVLA-OFT's L1 head)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from vla.config import register
from vla.models.heads.base import HeadLoss
from vla.models.heads.queries import QueryHead, binary_action, binary_mask, bounded, valid_items
from vla.types import ActionSpace

_ERRORS: dict[str, Any] = {
    "l1": functional.l1_loss,
    "mse": functional.mse_loss,
    "huber": functional.huber_loss,
}


@register("head", "regression")
class RegressionHead(QueryHead):
    """A linear map of every step's hidden state to its A numbers."""

    def __init__(
        self,
        loss: Literal["l1", "mse", "huber"] = "l1",  # error of the normalised numbers
        delta: float = 0.1,  # huber: error at which it becomes linear, normalised units
        parallel: bool = True,  # action queries attend to each other in both directions
        *,
        decoder: Any,
        action_space: ActionSpace,
        horizon: int,
    ) -> None:
        super().__init__(decoder, horizon, parallel)
        self.kind, self.delta = loss, delta
        self.out = nn.Linear(decoder.width, action_space.dim)
        self.register_buffer("binary_A", binary_mask(action_space), persistent=False)
        self.binary_A: torch.Tensor

    def _actions(self, raw_KHA: torch.Tensor) -> torch.Tensor:
        """Numbers as they are, binary dimensions by the sign of their logit."""
        return bounded(torch.where(self.binary_A, binary_action(raw_KHA), raw_KHA))

    def loss_from_states(
        self, states_KHD: torch.Tensor, normalized_actions_KHA: torch.Tensor, mask_KH: torch.Tensor
    ) -> HeadLoss:
        """The chosen error (binary dimensions: binary cross-entropy), one value per number."""
        raw = self.out(states_KHD)
        options = {"delta": self.delta} if self.kind == "huber" else {}
        error = _ERRORS[self.kind](raw, normalized_actions_KHA, reduction="none", **options)
        binary = functional.binary_cross_entropy_with_logits(
            raw, (normalized_actions_KHA > 0).float(), reduction="none"
        )
        loss_KHA = torch.where(self.binary_A, binary, error)
        return HeadLoss(*valid_items(loss_KHA, mask_KH), self._actions(raw.detach()))

    def actions_from_states(self, states_KHD: torch.Tensor) -> torch.Tensor:
        """See ``QueryHead``."""
        return self._actions(self.out(states_KHD))
