"""Several vision encoders in parallel (Prismatic VLMs, arXiv 2402.07865: DINOv2 with SigLIP)."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

import torch
from torch import nn

from vla.config import Slot, build, register


@register("vision", "fused")
class FusedEncoder(nn.Module):
    """Concatenates the channels of several encoders' tokens.

    Grids of other sizes are resampled to that of the first encoder.

    Raises:
        ValueError: fewer than two encoders.
    """

    # Options of a small instance, for vla.testing.
    example: ClassVar[dict[str, Any]] = {
        "encoders": [
            {"name": "conv", "widths": [8, 16], "blocks": [1, 1], "image_size": 32},
            {"name": "conv", "widths": [8], "blocks": [1], "image_size": 16},
        ]
    }

    def __init__(
        self,
        # At least two vision encoders, each with its own options or the name of a preset.
        encoders: list[Annotated[dict[str, Any], Slot("vision")]],
        *,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        if len(encoders) < 2:
            raise ValueError(f"vision.encoders: {len(encoders)} given, at least two are needed")
        parts = [
            build("vision", e, f"vision.encoders[{n}]", pretrained=pretrained)
            for n, e in enumerate(encoders)
        ]
        self.encoders = nn.ModuleList(parts)
        self.width = sum(p.width for p in parts)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Images uint8 (B, 3, H, W) to tokens (B, N, D), D being the sum of all widths."""
        first, *others = [e(images_BCHW) for e in self.encoders]
        return torch.cat([first, *(_resample(t, first.shape[1]) for t in others)], -1)


def _resample(tokens_BND: torch.Tensor, count: int) -> torch.Tensor:
    """A square token grid resampled to ``count`` tokens.

    Raises:
        ValueError: a grid is not square.
    """
    if tokens_BND.shape[1] == count:
        return tokens_BND
    old, new = math.isqrt(tokens_BND.shape[1]), math.isqrt(count)
    if old * old != tokens_BND.shape[1] or new * new != count:
        raise ValueError(
            f"vision.encoders: {tokens_BND.shape[1]} and {count} tokens; "
            "only square grids can be fused"
        )
    grid = tokens_BND.transpose(1, 2).unflatten(2, (old, old))
    grid = nn.functional.interpolate(grid, (new, new), mode="bilinear", antialias=True)
    return grid.flatten(2).transpose(1, 2)
