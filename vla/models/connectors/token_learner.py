"""TokenLearner (arXiv 2106.11297; RT-1): a few weighted sums of all image tokens."""

from __future__ import annotations

import math

import torch
from torch import nn

from vla.config import register

_SPREAD = 6.0  # initial logits with ``coordinates`` have a standard deviation of about 2


@register("connector", "token_learner")
class TokenLearner(nn.Module):
    """``tokens`` weighted sums of the image tokens; an MLP computes the weights from the tokens.

    Raises:
        ValueError: ``tokens`` or ``heads`` is below 1, or ``heads`` does not divide the width.
    """

    def __init__(
        self,
        tokens: int = 8,  # output tokens, at least 1 (RT-1: 8)
        hidden: int = 64,  # hidden width of the MLP that computes the weights
        heads: int = 1,  # sums per output token, each of 1/heads of the channels
        # Add the mean image position of every sum (spatial softmax, arXiv 1504.00702).
        coordinates: bool = False,
        *,
        in_width: int,
        out_width: int,
    ) -> None:
        super().__init__()
        if tokens < 1:
            raise ValueError(f"connector.tokens={tokens}: at least 1")
        if heads < 1 or in_width % heads:
            raise ValueError(
                f"connector.heads={heads}: must divide the vision encoder's width {in_width}"
            )
        self.heads, self.coordinates = heads, coordinates
        last = nn.Linear(hidden, tokens * heads)
        if coordinates:  # a mean over nearly all cells says nothing of a place
            nn.init.normal_(last.weight, std=_SPREAD / math.sqrt(hidden))
        self.weights = nn.Sequential(
            nn.LayerNorm(in_width), nn.Linear(in_width, hidden), nn.GELU(), last
        )
        self.project = nn.Linear(in_width + 2 * heads * coordinates, out_width)

    def forward(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        """Image tokens (B, N, in_width) to (B, tokens, out_width).

        Raises:
            ValueError: ``coordinates`` with image tokens that are no square grid.
        """
        b, n = tokens_BND.shape[:2]
        weights_BHTN = (
            self.weights(tokens_BND).softmax(1).view(b, n, -1, self.heads).permute(0, 3, 2, 1)
        )
        values_BHND = tokens_BND.view(b, n, self.heads, -1).transpose(1, 2)
        sums = [(weights_BHTN @ values_BHND).transpose(1, 2).flatten(2)]
        if self.coordinates:
            means_BHT2 = weights_BHTN @ _grid(n, tokens_BND)
            sums.append(means_BHT2.transpose(1, 2).flatten(2))
        return self.project(torch.cat(sums, 2))


def _grid(n: int, like: torch.Tensor) -> torch.Tensor:
    """(n, 2) rows and columns of a square grid, in row order; mean 0, variance 1 (nearly)."""
    side = math.isqrt(n)
    if side * side != n:
        raise ValueError(
            f"connector.coordinates: {n} image tokens are no square grid; use a vision encoder "
            "that gives one token per image cell"
        )
    steps = (torch.arange(side, dtype=like.dtype, device=like.device) + 0.5) * 2 / side - 1
    return torch.cartesian_prod(steps, steps) * math.sqrt(3)
