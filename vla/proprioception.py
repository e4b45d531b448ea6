"""The robot's own measured state, as one more token before the text (a linear map of it, as in pi0, arXiv 2410.24164)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vla.actions.normalise import ends
from vla.config import ConfigError

_OUTSIDE = 1.5  # normalised values are held within this: a state never seen in training is not extrapolated far


class StateEncoder(nn.Module):
    """State (B, T, P) in robot units to one token (B, 1, D); q01 to q99 of the training data become -1 to 1.

    statistics: of the training state (see ``vla.data.manifest.statistics``); history: T.

    Raises:
        ConfigError: the data has no state.
    """

    def __init__(self, statistics: dict[str, Any] | None, history: int, width: int) -> None:
        super().__init__()
        if not statistics:
            raise ConfigError("policy.state=true: the robot data has no state; leave it false, or pack it with mapping.state")
        pairs = [ends(statistics, "quantiles", k) for k in range(len(statistics["mean"]))]
        low, high = torch.tensor(pairs, dtype=torch.float64).unbind(1)
        half = torch.where(high - low < 1e-6, torch.ones_like(low), (high - low) / 2)
        self.register_buffer("centre_P", ((high + low) / 2).float(), persistent=False)
        self.register_buffer("half_P", half.float(), persistent=False)
        self.centre_P: torch.Tensor
        self.half_P: torch.Tensor
        self.history = history
        self.project = nn.Linear(history * len(pairs), width)

    def forward(self, state_BTP: torch.Tensor | None) -> torch.Tensor:
        """Raises ValueError when the state is missing or has another shape."""
        wanted = (self.history, len(self.centre_P))
        if state_BTP is None or state_BTP.shape[1:] != wanted:
            given = "none" if state_BTP is None else f"one of shape {tuple(state_BTP.shape)}"
            raise ValueError(f"this policy looks at the robot's state: give (rows, {wanted[0]}, {wanted[1]}), got {given}")
        unit = ((state_BTP.to(self.centre_P) - self.centre_P) / self.half_P).clamp(-_OUTSIDE, _OUTSIDE)
        return self.project(unit.flatten(1))[:, None]
