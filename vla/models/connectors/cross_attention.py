"""Gated cross-attention from text to image tokens in the decoder (Flamingo, arXiv 2204.14198)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from vla.config import register
from vla.models.decoders.base import CROSS_ATTENTION, CrossAttentionInput


class _GatedCrossAttention(nn.Module):
    """Adds attention to the image; the gates start at 0, so a pretrained decoder is unchanged."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.gates = nn.Parameter(torch.zeros(2))

    def forward(self, hidden_BLD: torch.Tensor, image: CrossAttentionInput) -> torch.Tensor:
        attend = image.attend_image_BL[:, :, None].to(hidden_BLD.dtype)
        keys = image.tokens_BND
        read = self.attention(self.attention_norm(hidden_BLD), keys, keys, need_weights=False)[0]
        hidden_BLD = hidden_BLD + self.gates[0].tanh() * read * attend
        return hidden_BLD + self.gates[1].tanh() * self.mlp(self.mlp_norm(hidden_BLD)) * attend


@register("connector", "cross_attention")
class CrossAttentionConnector(nn.Module):
    """Adds a gated cross-attention layer before blocks of the decoder.

    Raises:
        ValueError: an option is outside its range.
    """

    uses_cross_attention = True  # its tokens do not stand before the text

    def __init__(
        self,
        every: int = 1,  # a layer before every n-th block of the decoder, at least 1
        heads: int = 4,  # attention heads; must divide the decoder's width
        *,
        in_width: int,
        out_width: int,
        decoder: Any,
    ) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"connector.every={every}: at least 1")
        if out_width % heads:
            raise ValueError(
                f"connector.heads={heads}: must divide the decoder's width {out_width}"
            )
        self.project = nn.Sequential(nn.Linear(in_width, out_width), nn.LayerNorm(out_width))
        count = len(list(decoder.layers)[::every])
        self.layers = nn.ModuleList(_GatedCrossAttention(out_width, heads) for _ in range(count))
        for n, block in enumerate(decoder.layers):
            layer = self.layers[n // every] if n % every == 0 else None
            block.register_forward_pre_hook(_before_block(layer), with_kwargs=True)

    def forward(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        """Image tokens (B, N, in_width) to keys and values (B, N, out_width)."""
        return self.project(tokens_BND)


def _before_block(layer: nn.Module | None) -> Callable[..., Any]:
    """A stateless hook that applies ``layer`` to the input of a decoder block.

    The image arrives as an argument: the decoder passes ``CrossAttentionInput`` to the language
    model, whose blocks receive it with their other keyword arguments. The hook removes it, because
    a Hugging Face block does not know it. A module around the block would rename the weights of the
    language model, and freezing and LoRA would then include the new layer.
    """

    def hook(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        image = kwargs.pop(CROSS_ATTENTION, None)
        if layer is not None and image is not None:
            args = (layer(args[0], image), *args[1:])
        return args, kwargs

    return hook
