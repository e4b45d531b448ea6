"""Perceiver resampler (Flamingo, arXiv 2204.14198): learned queries attend to the image tokens."""

from __future__ import annotations

import torch
from torch import nn

from vla.config import register


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(width)
        self.image_norm = nn.LayerNorm(width)
        self.mlp_norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, queries_BND: torch.Tensor, images_BND: torch.Tensor) -> torch.Tensor:
        queries = self.query_norm(queries_BND)
        keys = torch.cat([self.image_norm(images_BND), queries], 1)
        queries_BND = queries_BND + self.attention(queries, keys, keys, need_weights=False)[0]
        return queries_BND + self.mlp(self.mlp_norm(queries_BND))


@register("connector", "perceiver")
class PerceiverResampler(nn.Module):
    """Any number of image tokens to a fixed number of tokens.

    Raises:
        ValueError: an option is outside its range.
    """

    def __init__(
        self,
        tokens: int = 16,  # output tokens, at least 1
        layers: int = 2,  # cross-attention layers, at least 1
        heads: int = 4,  # attention heads; must divide the decoder's width
        *,
        in_width: int,
        out_width: int,
    ) -> None:
        super().__init__()
        if tokens < 1 or layers < 1:
            raise ValueError(f"connector: tokens={tokens} and layers={layers} must be at least 1")
        if out_width % heads:
            raise ValueError(
                f"connector.heads={heads}: must divide the decoder's width {out_width}"
            )
        self.project = nn.Linear(in_width, out_width)
        self.query_ND = nn.Parameter(torch.randn(tokens, out_width) * 0.02)
        self.layers = nn.ModuleList(_Layer(out_width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(out_width)

    def forward(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        """Image tokens (B, N, in_width) to (B, tokens, out_width)."""
        images = self.project(tokens_BND)
        queries = self.query_ND.expand(images.shape[0], -1, -1)
        for layer in self.layers:
            queries = layer(queries, images)
        return self.norm(queries)
