"""Normalisation of actions to [-1, 1], from action space bounds or dataset statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from vla.types import ActionSpace

Mode = Literal["bounds", "quantiles", "min_max", "z_score", "identity"]
# A dimension with a smaller range (robot units) is centred and never scaled up: it is noise.
_CONSTANT_RANGE = 1e-6
# Quantiles that span a smaller share of the whole range describe a dimension that rarely moves:
# they are no useful scale, and min_max is used instead.
_MIN_QUANTILE_SHARE = 1e-3
_Z_SCORE_DEVIATIONS = 3.0  # this many standard deviations become 1


class Normaliser(nn.Module):
    """Affine map of actions (..., A) to [-1, 1]; values outside are clamped.

    Chunks (..., H, A) get a range for every step where the statistics have H x A columns. Binary
    and whole-number dimensions always use the bounds. ``inverse`` gives a dimension that never
    moves in the training data its recorded value exactly, whatever a codec or head predicts.

    Args:
        mode: ``bounds`` of the action space; ``quantiles`` q01 to q99 (OpenVLA), which clamp at
            most 2 % of the training data; ``min_max`` of the data; ``z_score`` (three standard
            deviations become 1); ``identity`` (actions are in [-1, 1] already).
        dims: another mode for some dimensions, by name.
        complete: the statistics are of all rows. False: of a sample, in which a dimension may
            rest by chance; then none is held at its recorded value.

    Raises:
        ValueError: statistics are needed and missing, or ``dims`` names an unknown dimension.
    """

    def __init__(
        self,
        space: ActionSpace,
        statistics: dict[str, Any] | None,
        mode: Mode = "bounds",
        dims: dict[str, Mode] | None = None,
        complete: bool = True,
    ) -> None:
        super().__init__()
        exceptions, bounded = dims or {}, {*space.binary, *space.integer}
        unknown = [n for n in exceptions if n not in space.names]
        if unknown:
            raise ValueError(
                f"normalise_dims.{unknown[0]}: no such action dim; "
                f"choices: {', '.join(space.names)}"
            )
        has_range = statistics is not None and "min" in statistics
        steps = len((statistics or {})["min"]) // len(space.names) if has_range else 1
        low, high = [], []
        for column in range(steps * len(space.names)):
            k = column % len(space.names)
            name = space.names[k]
            own = "bounds" if name in bounded else exceptions.get(name, mode)
            if own not in ("bounds", "identity") and not statistics:
                raise ValueError(
                    f"normalise: {own!r} needs action statistics; the manifest of the dataset has "
                    "none: set normalise to 'bounds', or pack the data again"
                )
            fixed = {"bounds": (space.low[k], space.high[k]), "identity": (-1.0, 1.0)}
            known = fixed.get(own) or normalised_range(statistics or {}, own, column)
            low.append(known[0])
            high.append(known[1])
        shape = (steps, len(space.names)) if steps > 1 else (len(space.names),)
        bottom, top = (torch.tensor(v, dtype=torch.float64).reshape(shape) for v in (low, high))
        centre, half = (top + bottom) / 2, (top - bottom) / 2
        known_fixed = fixed_dims(statistics if complete else None, len(low))
        constant = torch.from_numpy(known_fixed).reshape(shape)
        divisor = torch.where(half * 2 < _CONSTANT_RANGE, torch.ones_like(half), half)
        self.register_buffer("centre_A", centre.float(), persistent=False)
        self.register_buffer("half_A", divisor.float(), persistent=False)
        self.register_buffer("span_A", (half if complete else divisor).float(), persistent=False)
        self.register_buffer("constant_A", constant, persistent=False)
        self.centre_A: torch.Tensor
        self.half_A: torch.Tensor
        self.span_A: torch.Tensor
        self.constant_A: torch.Tensor
        self.quantiles = self._normalised_quantiles((statistics or {}).get("quantiles"), shape)

    def _normalised_quantiles(
        self, quantiles: list[list[float]] | None, shape: tuple[int, ...]
    ) -> torch.Tensor | None:
        """Normalised quantiles (L, A) of all steps at L even levels; None if the data has none."""
        if quantiles is None:
            return None
        normalized = self(torch.tensor(quantiles, dtype=torch.float32).reshape(-1, *shape))
        if normalized.ndim == 2:
            return normalized
        levels = torch.linspace(0, 1, len(normalized))
        return torch.quantile(normalized.flatten(0, 1), levels, 0)

    def forward(self, actions: torch.Tensor) -> torch.Tensor:
        """Actions (..., A) in robot units to [-1, 1]."""
        return ((actions - self.centre_A) / self.half_A).clamp(-1.0, 1.0)

    def inverse(self, normalized_actions: torch.Tensor) -> torch.Tensor:
        """Actions (..., A) in [-1, 1] to robot units."""
        actions = normalized_actions * self.span_A + self.centre_A
        return torch.where(self.constant_A.isnan(), actions, self.constant_A)


def fixed_dims(statistics: Mapping[str, Any] | None, count: int) -> np.ndarray:
    """(count,) float32: the recorded value of each column that never moves, NaN of the others."""
    if not statistics or "min" not in statistics:
        return np.full(count, np.nan, np.float32)
    low, high = np.array(statistics["min"]), np.array(statistics["max"])
    return np.where(low == high, low, np.nan).astype(np.float32)


def normalised_range(statistics: dict[str, Any], mode: Mode, k: int) -> tuple[float, float]:
    """The values (robot units) of column ``k`` that become -1 and 1."""
    full = statistics["min"][k], statistics["max"][k]
    if mode == "min_max":
        return full
    if mode == "z_score":
        mean, deviation = statistics["mean"][k], _Z_SCORE_DEVIATIONS * statistics["std"][k]
        return mean - deviation, mean + deviation
    inner = statistics["q01"][k], statistics["q99"][k]
    return inner if inner[1] - inner[0] >= _MIN_QUANTILE_SHARE * (full[1] - full[0]) else full
