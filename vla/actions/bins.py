"""Uniform bins over [-1, 1] (RT-1 and RT-2: 256)."""

from __future__ import annotations

import torch


class UniformBins:
    """Value to bin index and back. Decoding gives the bin's centre, except that the outermost bins give -1 and 1 exactly.

    So decisions (0 and 1 in robot units) survive unchanged, and the error elsewhere is at most one bin width / 2 (/ 1 at the ends).
    """

    def __init__(self, count: int = 256) -> None:
        if count < 2:
            raise ValueError(f"bins={count}: at least 2 are needed")
        self.count = count

    def encode(self, unit: torch.Tensor) -> torch.Tensor:
        """(...) in [-1, 1] to int64 in 0..count-1."""
        return ((unit + 1.0) / 2.0 * self.count).floor().long().clamp(0, self.count - 1)

    def decode(self, index: torch.Tensor) -> torch.Tensor:
        """(...) int64 to the bins' values in [-1, 1]."""
        centre = (index.float() + 0.5) / self.count * 2.0 - 1.0
        centre = torch.where(index == 0, torch.full_like(centre, -1.0), centre)
        return torch.where(index == self.count - 1, torch.full_like(centre, 1.0), centre)
