"""TokenLearner (arXiv 2106.11297; RT-1): a few weighted sums of all image tokens."""

from __future__ import annotations

import torch
from torch import nn

from vla.config import register


@register("connector", "token_learner")
class TokenLearner(nn.Module):
    """``tokens`` weighted sums of the image tokens; an MLP computes the weights from the tokens.

    Raises:
        ValueError: ``tokens`` is below 1.
    """

    def __init__(
        self,
        tokens: int = 8,  # output tokens, at least 1 (RT-1: 8)
        hidden: int = 64,  # hidden width of the MLP that computes the weights
        *,
        in_width: int,
        out_width: int,
    ) -> None:
        super().__init__()
        if tokens < 1:
            raise ValueError(f"connector.tokens={tokens}: at least 1")
        self.weights = nn.Sequential(
            nn.LayerNorm(in_width),
            nn.Linear(in_width, hidden),
            nn.GELU(),
            nn.Linear(hidden, tokens),
        )
        self.project = nn.Linear(in_width, out_width)

    def forward(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        """Image tokens (B, N, in_width) to (B, tokens, out_width)."""
        weights_BNT = self.weights(tokens_BND).softmax(1)
        return self.project(weights_BNT.transpose(1, 2) @ tokens_BND)
