"""Cross-attention into the decoder (Flamingo, arXiv 2204.14198): text looks at image tokens from inside, none stand before it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vla.config import register


class _GatedCrossAttention(nn.Module):
    """Adds what the text sees in the image; the gates start shut, so a pretrained decoder starts unchanged."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm, self.think = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.gates = nn.Parameter(torch.zeros(2))

    def forward(self, hidden: torch.Tensor, memory_BMD: torch.Tensor, sees_BL: torch.Tensor) -> torch.Tensor:
        shown = sees_BL[:, :, None].to(hidden.dtype)
        seen = self.attention(self.norm(hidden), memory_BMD, memory_BMD, need_weights=False)[0]
        hidden = hidden + self.gates[0].tanh() * seen * shown
        return hidden + self.gates[1].tanh() * self.mlp(self.think(hidden)) * shown


@register("connector", "cross_attention")
class CrossAttentionConnector(nn.Module):
    """Puts a gated cross-attention layer before every ``every``-th block of the decoder.

    Args:
        every: blocks. heads: of the attention (must divide the decoder's width). decoder: (wired) whose blocks are extended.
    """

    crosses = True  # its tokens are looked at, not read

    def __init__(self, every: int = 1, heads: int = 4, *, in_width: int, out_width: int, decoder: Any) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"connector.every={every}: at least 1")
        if out_width % heads:
            raise ValueError(f"connector.heads={heads}: must divide the decoder's width {out_width}")
        self.project = nn.Sequential(nn.Linear(in_width, out_width), nn.LayerNorm(out_width))
        blocks = list(decoder.layers)[::every]
        self.layers = nn.ModuleList(_GatedCrossAttention(out_width, heads) for _ in blocks)
        for block, layer in zip(blocks, self.layers, strict=True):
            block.register_forward_pre_hook(_Look(decoder, layer))

    def forward(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        """(B, N, in_width) to the memory (B, N, out_width)."""
        return self.project(tokens_BND)


class _Look:
    """The hook: a block's hidden states pass through its layer first, when the decoder is looking at something."""

    def __init__(self, decoder: Any, layer: nn.Module) -> None:
        self.looking = lambda: decoder.crossing
        self.layer = layer

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        seen = self.looking()
        if seen is None or not arguments:
            return None
        return (self.layer(arguments[0], **seen), *arguments[1:])
