"""Codecs with one symbol a number: uniform bins (RT-1, RT-2, OpenVLA) and quantile bins.

A codec turns chunks of normalised actions (H, A) into symbols 0..symbols-1 and back, and says which symbols may follow which.
"""

from __future__ import annotations

import torch
from torch import nn

from vla.config import register


class NumberCodec(nn.Module):
    """What codecs with H x A symbols a chunk share; the subclass has ``index`` and ``value``."""

    def __init__(self, bins: int, action_dim: int, horizon: int) -> None:
        super().__init__()
        if bins < 2:
            raise ValueError(f"codec.bins={bins}: at least 2 are needed")
        self.symbols, self.action_dim, self.horizon = bins, action_dim, horizon
        self.length: int | None = action_dim * horizon

    def index(self, unit: torch.Tensor) -> torch.Tensor:
        """(..., A) in [-1, 1] to int64 in 0..symbols-1."""
        raise NotImplementedError

    def value(self, index: torch.Tensor) -> torch.Tensor:
        """(..., A) int64 to the bins' values in [-1, 1]."""
        raise NotImplementedError

    def encode(self, unit_KHA: torch.Tensor, valid_K: list[int]) -> list[list[int]]:
        """Symbols of the first ``valid`` steps of each chunk."""
        return [row[:n].flatten().tolist() for row, n in zip(self.index(unit_KHA).cpu(), valid_K, strict=True)]

    def decode(self, symbols: list[list[int]]) -> torch.Tensor:
        """Whole chunks of symbols to (B, H, A)."""
        return self.value(torch.tensor(symbols).reshape(-1, self.horizon, self.action_dim))

    def following(self, written: list[int]) -> tuple[int, ...] | None:
        """Symbols that may come next: None for any, empty when the chunk is whole."""
        return None if len(written) < self.action_dim * self.horizon else ()


@register("codec", "uniform")
class UniformBins(NumberCodec):
    """Uniform bins over [-1, 1]. Decoding gives the bin's centre, except that the outermost bins give -1 and 1 exactly.

    So decisions (0 and 1 in robot units) survive unchanged, and the error elsewhere is at most one bin width / 2 (/ 1 at the ends).
    """

    def __init__(self, bins: int = 256, *, action_dim: int = 1, horizon: int = 1) -> None:
        super().__init__(bins, action_dim, horizon)

    def index(self, unit: torch.Tensor) -> torch.Tensor:
        """See ``NumberCodec``."""
        return ((unit + 1.0) / 2.0 * self.symbols).floor().long().clamp(0, self.symbols - 1)

    def value(self, index: torch.Tensor) -> torch.Tensor:
        """See ``NumberCodec``."""
        centre = (index.float() + 0.5) / self.symbols * 2.0 - 1.0
        centre = torch.where(index == 0, torch.full_like(centre, -1.0), centre)
        return torch.where(index == self.symbols - 1, torch.full_like(centre, 1.0), centre)


@register("codec", "quantile")
class QuantileBins(NumberCodec):
    """Bins that hold equal shares of the training actions, per dim: fine where the robot mostly moves.

    Args:
        quantiles: (wired) (L, A) normalised values at L evenly spaced quantile levels 0..1.
    """

    def __init__(self, bins: int = 256, *, action_dim: int = 1, horizon: int = 1, quantiles: torch.Tensor | None = None) -> None:
        super().__init__(bins, action_dim, horizon)
        if quantiles is None:
            raise ValueError("codec: quantile bins need the data's quantiles, which its manifest lacks; pack the data again")
        levels = torch.linspace(0, 1, bins + 1, dtype=torch.float64) * (len(quantiles) - 1)
        low = levels.floor().long().clamp(max=len(quantiles) - 2)
        share = (levels - low)[:, None]
        known = quantiles.double()
        edges = (known[low] * (1 - share) + known[low + 1] * share).float()
        self.register_buffer("edges_LA", edges.cummax(0).values, persistent=False)
        self.edges_LA: torch.Tensor

    def index(self, unit: torch.Tensor) -> torch.Tensor:
        """See ``NumberCodec``; a value that fills whole bins by itself goes to one of these."""
        inner = self.edges_LA[1:-1].T.contiguous()
        flat = unit.reshape(-1, unit.shape[-1]).T.contiguous()
        below = torch.searchsorted(inner, flat, right=False)
        upto = torch.searchsorted(inner, flat, right=True)
        return ((below + upto) // 2).T.reshape(unit.shape)

    def value(self, index: torch.Tensor) -> torch.Tensor:
        """See ``NumberCodec``: the middle of the bin."""
        edges = self.edges_LA.to(index.device)
        column = torch.arange(edges.shape[1], device=index.device).expand(index.shape)
        return (edges[index, column] + edges[index + 1, column]) / 2
