"""Pixel shuffle (Idefics3, SmolVLM): squares of neighbouring tokens become one wider token."""

from __future__ import annotations

import math

import torch
from torch import nn

from vla.config import register


@register("connector", "pixel_shuffle")
class PixelShuffleConnector(nn.Module):
    """Joins ``factor`` x ``factor`` tokens of a square grid without averaging them.

    Raises:
        ValueError: the tokens are not a square grid whose side is a multiple of ``factor``.
    """

    def __init__(
        self,
        factor: int = 2,  # side of the joined squares, in tokens, at least 1
        *,
        in_width: int,
        out_width: int,
    ) -> None:
        super().__init__()
        if factor < 1:
            raise ValueError(f"connector.factor={factor}: at least 1")
        self.factor = factor
        self.project = nn.Linear(in_width * factor**2, out_width)

    def forward(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        """Image tokens (B, N, in_width) to (B, N / factor², out_width)."""
        b, n, d = tokens_BND.shape
        side, f = math.isqrt(n), self.factor
        if side * side != n or side % f:
            raise ValueError(
                f"connector.factor={f}: the vision encoder gives {n} tokens, which are not a "
                f"square grid whose side is a multiple of {f}; choose another factor"
            )
        squares = tokens_BND.reshape(b, side // f, f, side // f, f, d).permute(0, 1, 3, 2, 4, 5)
        return self.project(squares.reshape(b, n // f**2, f * f * d))
