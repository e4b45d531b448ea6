"""Encoder of the robot's measured state: one more token before the text."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vla.errors import ConfigError
from vla.models.actions.normalise import normalised_range

_MAX_ABS = 1.5  # normalised states are clamped to +-1.5, which limits extrapolation


class StateEncoder(nn.Module):
    """Linear map of the state (B, T, P) in robot units to one token (B, 1, D).

    Quantiles q01 and q99 of the training data become -1 and 1 (pi0, arXiv 2410.24164, also maps
    the state linearly).

    Args:
        statistics: of the training states, see ``vla.data.statistics``.
        history: T, frames up to now.

    Raises:
        ConfigError: the data has no state.
    """

    def __init__(self, statistics: dict[str, Any] | None, history: int, width: int) -> None:
        super().__init__()
        if not statistics:
            raise ConfigError(
                "policy.state=true: the robot data has no state; set it to false, "
                "or pack the data with mapping.state"
            )
        dims = range(len(statistics["mean"]))
        pairs = [normalised_range(statistics, "quantiles", k) for k in dims]
        low, high = torch.tensor(pairs, dtype=torch.float64).unbind(1)
        half = torch.where(high - low < 1e-6, torch.ones_like(low), (high - low) / 2)
        self.register_buffer("centre_P", ((high + low) / 2).float(), persistent=False)
        self.register_buffer("half_P", half.float(), persistent=False)
        self.centre_P: torch.Tensor
        self.half_P: torch.Tensor
        self.history = history
        self.project = nn.Linear(history * len(pairs), width)

    def forward(self, state_BTP: torch.Tensor | None) -> torch.Tensor:
        """State (B, T, P) to a token (B, 1, D).

        Raises:
            ValueError: the state is missing or has another shape.
        """
        expected = (self.history, len(self.centre_P))
        if state_BTP is None or state_BTP.shape[1:] != expected:
            given = "none" if state_BTP is None else f"shape {tuple(state_BTP.shape)}"
            raise ValueError(
                f"this policy uses the robot's state: give an array of shape "
                f"(rows, {expected[0]}, {expected[1]}), got {given}"
            )
        normalized = (state_BTP.to(self.centre_P) - self.centre_P) / self.half_P
        return self.project(normalized.clamp(-_MAX_ABS, _MAX_ABS).flatten(1))[:, None]
