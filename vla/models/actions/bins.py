"""Codecs with one symbol per number: uniform bins (RT-1, RT-2, OpenVLA) and quantile bins.

A codec converts chunks of normalised actions (H, A) to symbols 0..symbols-1 and back. It also says
which symbols may follow the symbols generated so far.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from vla.config import register


class NumberCodec(nn.Module, ABC):
    """Base of codecs with H x A symbols per chunk; subclasses implement ``index`` and ``value``."""

    def __init__(self, bins: int, action_dim: int, horizon: int) -> None:
        super().__init__()
        if bins < 2:
            raise ValueError(f"codec.bins={bins}: at least 2")
        self.symbols, self.action_dim, self.horizon = bins, action_dim, horizon
        self.length: int | None = action_dim * horizon

    @abstractmethod
    def index(self, normalized_actions: torch.Tensor) -> torch.Tensor:
        """Actions (..., A) in [-1, 1] to int64 bins in 0..symbols-1."""

    @abstractmethod
    def value(self, index: torch.Tensor) -> torch.Tensor:
        """Bins (..., A) int64 to values in [-1, 1]."""

    def encode(self, normalized_actions_KHA: torch.Tensor, valid_K: list[int]) -> list[list[int]]:
        """Symbols of the first ``valid_K[k]`` steps of every chunk."""
        return [
            row[:n].flatten().tolist()
            for row, n in zip(self.index(normalized_actions_KHA).cpu(), valid_K, strict=True)
        ]

    def most_likely(self, logits: torch.Tensor) -> torch.Tensor:
        """Values of the bins with the largest logits (..., bins); NaN where a logit is NaN."""
        return torch.where(logits.isnan().any(-1), torch.nan, self.value(logits.argmax(-1)))

    def decode(self, symbols: list[list[int]]) -> torch.Tensor:
        """Symbols of whole chunks to actions (B, H, A)."""
        return self.value(torch.tensor(symbols).reshape(-1, self.horizon, self.action_dim))

    def following(self, generated: list[int]) -> tuple[int, ...] | None:
        """Symbols that may come next: None for any, empty when the chunk is complete."""
        return None if len(generated) < self.action_dim * self.horizon else ()


@register("codec", "uniform")
class UniformBins(NumberCodec):
    """Uniform bins over [-1, 1].

    A bin decodes to its centre; the outermost bins decode to exactly -1 and 1. Binary dimensions
    therefore survive unchanged. The error is at most half a bin, and one bin at the ends.
    """

    def __init__(
        self,
        bins: int = 256,  # bins per action dimension, at least 2
        *,
        action_dim: int = 1,
        horizon: int = 1,
    ) -> None:
        super().__init__(bins, action_dim, horizon)

    def index(self, normalized_actions: torch.Tensor) -> torch.Tensor:
        """See ``NumberCodec``."""
        scaled = (normalized_actions + 1.0) / 2.0 * self.symbols
        return scaled.floor().long().clamp(0, self.symbols - 1)

    def value(self, index: torch.Tensor) -> torch.Tensor:
        """See ``NumberCodec``."""
        centre = (index.float() + 0.5) / self.symbols * 2.0 - 1.0
        centre = torch.where(index == 0, torch.full_like(centre, -1.0), centre)
        return torch.where(index == self.symbols - 1, torch.full_like(centre, 1.0), centre)


@register("codec", "quantile")
class QuantileBins(NumberCodec):
    """Bins with equal shares of the training actions, for each dimension.

    The resolution is high where the robot mostly moves. ``quantiles`` is (L, A): normalised values
    at L evenly spaced quantile levels from 0 to 1.

    Raises:
        ValueError: the data set has no quantiles.
    """

    def __init__(
        self,
        bins: int = 256,  # bins per action dimension, at least 2
        *,
        action_dim: int = 1,
        horizon: int = 1,
        quantiles: torch.Tensor | None = None,
    ) -> None:
        super().__init__(bins, action_dim, horizon)
        if quantiles is None:
            raise ValueError(
                "codec: quantile bins need the quantiles of the data, which its manifest lacks; "
                "pack the data again"
            )
        levels = torch.linspace(0, 1, bins + 1, dtype=torch.float64) * (len(quantiles) - 1)
        low = levels.floor().long().clamp(max=len(quantiles) - 2)
        share = (levels - low)[:, None]
        known = quantiles.double()
        edges = (known[low] * (1 - share) + known[low + 1] * share).float()
        self.register_buffer("edges_LA", edges.cummax(0).values, persistent=False)
        self.edges_LA: torch.Tensor

    def index(self, normalized_actions: torch.Tensor) -> torch.Tensor:
        """See ``NumberCodec``; a value that fills several bins alone gets the middle one."""
        inner = self.edges_LA[1:-1].T.contiguous()
        shape = normalized_actions.shape
        flat = normalized_actions.reshape(-1, shape[-1]).T.contiguous()
        below = torch.searchsorted(inner, flat, right=False)
        upto = torch.searchsorted(inner, flat, right=True)
        return ((below + upto) // 2).T.reshape(shape)

    def value(self, index: torch.Tensor) -> torch.Tensor:
        """See ``NumberCodec``: the middle of the bin."""
        edges = self.edges_LA.to(index.device)
        column = torch.arange(edges.shape[1], device=index.device).expand(index.shape)
        return (edges[index, column] + edges[index + 1, column]) / 2
