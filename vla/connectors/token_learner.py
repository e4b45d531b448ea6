"""TokenLearner (arXiv 2106.11297; RT-1): a few tokens, each a learned weighting of all image tokens."""

from __future__ import annotations

import torch
from torch import nn

from vla.config import register


@register("connector", "token_learner")
class TokenLearner(nn.Module):
    """``tokens`` weighted sums over the image tokens; the weights come from the tokens themselves.

    Args:
        tokens: how many (RT-1: 8). hidden: width of the map that makes the weights.
    """

    def __init__(self, tokens: int = 8, hidden: int = 64, *, in_width: int, out_width: int) -> None:
        super().__init__()
        if tokens < 1:
            raise ValueError(f"connector.tokens={tokens}: at least 1")
        self.weigh = nn.Sequential(nn.LayerNorm(in_width), nn.Linear(in_width, hidden), nn.GELU(), nn.Linear(hidden, tokens))
        self.project = nn.Linear(in_width, out_width)

    def forward(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        """(B, N, in_width) to (B, tokens, out_width)."""
        share = self.weigh(tokens_BND).softmax(1)
        return self.project(share.transpose(1, 2) @ tokens_BND)
