"""Robot units to [-1, 1] and back, from the contract's bounds or the data's statistics."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from vla.schema import ActionSpace

Mode = Literal["bounds", "quantiles", "min_max"]
_TINY = 1e-6  # a range below this (robot units) is a dead dim: it is centred on its value, never blown up


class Normaliser(nn.Module):
    """Affine map of actions (..., A) to [-1, 1].

    mode: ``bounds`` of the action space, ``quantiles`` q01 to q99 (OpenVLA), or ``min_max`` of the data. Binary dims always use bounds.
    Values outside are clamped on the way in; ``clipped_share`` of the training data is therefore at most 2 % for quantiles.
    """

    def __init__(self, space: ActionSpace, statistics: dict[str, Any] | None, mode: Mode = "bounds") -> None:
        super().__init__()
        low, high = torch.tensor(space.low, dtype=torch.float64), torch.tensor(space.high, dtype=torch.float64)
        if mode != "bounds":
            if not statistics:
                raise ValueError(f"normalise: {mode!r} needs action statistics; the data set's manifest has none, use 'bounds'")
            keys = ("q01", "q99") if mode == "quantiles" else ("min", "max")
            scaled = torch.tensor([n not in space.binary for n in space.names])
            low = torch.where(scaled, torch.tensor(statistics[keys[0]], dtype=torch.float64), low)
            high = torch.where(scaled, torch.tensor(statistics[keys[1]], dtype=torch.float64), high)
        dead = (high - low) < _TINY
        centre = (high + low) / 2
        half = torch.where(dead, torch.ones_like(low), (high - low) / 2)
        self.register_buffer("centre_A", centre.float(), persistent=False)
        self.register_buffer("half_A", half.float(), persistent=False)
        self.centre_A: torch.Tensor
        self.half_A: torch.Tensor
        held = (statistics or {}).get("quantiles")
        # (L, A) the data's quantiles at L even levels, normalised
        self.quantiles = None if held is None else self(torch.tensor(held, dtype=torch.float32))

    def forward(self, actions: torch.Tensor) -> torch.Tensor:
        """(..., A) robot units to [-1, 1]."""
        return ((actions - self.centre_A) / self.half_A).clamp(-1.0, 1.0)

    def inverse(self, unit: torch.Tensor) -> torch.Tensor:
        """(..., A) in [-1, 1] to robot units."""
        return unit * self.half_A + self.centre_A
