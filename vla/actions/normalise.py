"""Robot units to [-1, 1] and back, from the contract's bounds or the data's statistics."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from vla.schema import ActionSpace

Mode = Literal["bounds", "quantiles", "min_max", "z_score", "identity"]
_TINY = 1e-6  # a range below this (robot units) is a dead dim: it is centred on its value, never blown up
_NARROW = (
    1e-3  # quantiles that span less than this share of the whole range are no scale (a dim that rarely moves): min_max is taken
)
_DEVIATIONS = 3.0  # standard deviations that become 1 in z_score


class Normaliser(nn.Module):
    """Affine map of actions (..., A) to [-1, 1]; of chunks (..., H, A), each step by its own ends, where statistics have H x A columns.

    mode: ``bounds`` of the action space, ``quantiles`` q01 to q99 (OpenVLA), ``min_max`` of the data, ``z_score`` (three standard deviations become
    1), or ``identity`` (already in [-1, 1]). dims: another mode for some dims, by name. Binary dims always use bounds. Values outside are clamped on the
    way in; for quantiles that is at most 2 % of the training data.

    Raises:
        ValueError: statistics are needed and missing, or ``dims`` names an unknown dim.
    """

    def __init__(
        self, space: ActionSpace, statistics: dict[str, Any] | None, mode: Mode = "bounds", dims: dict[str, Mode] | None = None
    ) -> None:
        super().__init__()
        unknown = [n for n in dims or {} if n not in space.names]
        if unknown:
            raise ValueError(f"normalise_dims.{unknown[0]}: no such action dim; choices: {', '.join(space.names)}")
        low, high = [], []
        steps = len(statistics["min"]) // len(space.names) if statistics and "min" in statistics else 1
        for column in range(steps * len(space.names)):
            k = column % len(space.names)
            own = "bounds" if space.names[k] in space.binary else (dims or {}).get(space.names[k], mode)
            if own not in ("bounds", "identity") and not statistics:
                raise ValueError(f"normalise: {own!r} needs action statistics; the data set's manifest has none, use 'bounds'")
            fixed = {"bounds": (space.low[k], space.high[k]), "identity": (-1.0, 1.0)}
            both = fixed[own] if own in fixed else ends(statistics or {}, own, column)
            low.append(both[0])
            high.append(both[1])
        shape = (steps, len(space.names)) if steps > 1 else (len(space.names),)
        bottom, top = (torch.tensor(v, dtype=torch.float64).reshape(shape) for v in (low, high))
        centre, half = (top + bottom) / 2, (top - bottom) / 2
        half = torch.where(half * 2 < _TINY, torch.ones_like(half), half)
        self.register_buffer("centre_A", centre.float(), persistent=False)
        self.register_buffer("half_A", half.float(), persistent=False)
        self.centre_A: torch.Tensor
        self.half_A: torch.Tensor
        self.quantiles = self._levels((statistics or {}).get("quantiles"), shape)

    def _levels(self, held: list[list[float]] | None, shape: tuple[int, ...]) -> torch.Tensor | None:
        """(L, A) the data's quantiles at L even levels, normalised, steps together; None where none are known."""
        if held is None:
            return None
        unit = self(torch.tensor(held, dtype=torch.float32).reshape(-1, *shape))
        if unit.ndim == 2:
            return unit
        return torch.quantile(unit.flatten(0, 1), torch.linspace(0, 1, len(unit)), 0)

    def forward(self, actions: torch.Tensor) -> torch.Tensor:
        """(..., A) robot units to [-1, 1]."""
        return ((actions - self.centre_A) / self.half_A).clamp(-1.0, 1.0)

    def inverse(self, unit: torch.Tensor) -> torch.Tensor:
        """(..., A) in [-1, 1] to robot units."""
        return unit * self.half_A + self.centre_A


def ends(statistics: dict[str, Any], mode: Mode, k: int) -> tuple[float, float]:
    """What becomes -1 and 1 of column ``k``, robot units."""
    whole = statistics["min"][k], statistics["max"][k]
    if mode == "min_max":
        return whole
    if mode == "z_score":
        return statistics["mean"][k] - _DEVIATIONS * statistics["std"][k], statistics["mean"][k] + _DEVIATIONS * statistics["std"][
            k
        ]
    inner = statistics["q01"][k], statistics["q99"][k]
    return inner if inner[1] - inner[0] >= _NARROW * (whole[1] - whole[0]) else whole
