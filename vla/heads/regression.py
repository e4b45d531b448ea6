"""The continuous baseline: numbers by regression, decisions by classification (OpenVLA-OFT's L1 head)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from vla.config import register
from vla.decoders.base import Decoder, Prefix
from vla.heads.base import HeadLoss, Prediction
from vla.heads.queries import ActionQueries, binary_mask, decide, flat
from vla.schema import ActionSpace, RobotBatch

_ERRORS: dict[str, Any] = {"l1": functional.l1_loss, "mse": functional.mse_loss, "huber": functional.huber_loss}


@register("head", "regression")
class RegressionHead(nn.Module):
    """One query a step of the horizon; its last hidden state becomes the step's A numbers.

    Args:
        loss: ``l1``, ``mse`` or ``huber`` (bend at ``delta``) in normalised units. parallel: see ``ActionQueries``.
    """

    def __init__(
        self, loss: Literal["l1", "mse", "huber"] = "l1", delta: float = 0.1, parallel: bool = True, *, decoder: Any, action_space: ActionSpace,
        horizon: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kind, self.delta = loss, delta
        self.queries = ActionQueries(decoder.width, horizon, parallel)
        self.norm = nn.LayerNorm(decoder.width)
        self.out = nn.Linear(decoder.width, action_space.dim)
        self.register_buffer("binary_A", binary_mask(action_space), persistent=False)
        self.binary_A: torch.Tensor

    def _unit(self, raw_KHA: torch.Tensor) -> torch.Tensor:
        """Numbers as they are, decisions by the sign of their logit."""
        return torch.where(self.binary_A, decide(raw_KHA), raw_KHA).clamp(-1, 1)

    def loss(self, decoder: Decoder, prefix: Prefix, batch: RobotBatch, unit_KHA: torch.Tensor) -> HeadLoss:
        """The chosen error for numbers and binary cross-entropy for decisions, one value a number, steps inside the episode only."""
        raw = self.out(self.norm(self.queries(decoder, prefix, batch.owner_K, batch.instructions)))
        options = {"delta": self.delta} if self.kind == "huber" else {}
        error = _ERRORS[self.kind](raw, unit_KHA, reduction="none", **options)
        choice = functional.binary_cross_entropy_with_logits(raw, (unit_KHA > 0).float(), reduction="none")
        return HeadLoss(*flat(torch.where(self.binary_A, choice, error), batch.mask_KH), self._unit(raw.detach()))

    def predict(self, decoder: Decoder, prefix: Prefix, instructions: list[str]) -> Prediction:
        """(B, H, A) in [-1, 1]."""
        owner = torch.arange(len(instructions), device=self.binary_A.device)
        return Prediction(self._unit(self.out(self.norm(self.queries(decoder, prefix, owner, instructions)))))
