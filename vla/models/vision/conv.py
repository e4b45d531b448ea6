"""A small convolutional vision encoder for training from scratch on CPUs."""

from __future__ import annotations

import torch
from torch import nn

from vla.config import register
from vla.models.vision.positions import sincos_2d


class _ConvNorm(nn.Sequential):
    """3x3 convolution, or one of patches that do not overlap; group norm, ReLU."""

    def __init__(self, inside: int, outside: int, stride: int = 1, patch: bool = False) -> None:
        kernel, padding = (stride, 0) if patch else (3, 1)
        conv = nn.Conv2d(inside, outside, kernel, stride=stride, padding=padding, bias=False)
        super().__init__(conv, nn.GroupNorm(8, outside), nn.ReLU())


class _Block(nn.Module):
    """Residual pair of 3x3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = _ConvNorm(width, width), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.b(self.a(x))


@register("vision", "conv")
class ConvEncoder(nn.Module):
    """Strided stages of residual blocks; one layer-normed token per cell of the last map.

    A learned position embedding, initialised with sines, is added. The image's median colour is
    subtracted first, which removes a uniform background. This matters when training from scratch
    on little data (measured).

    Raises:
        ValueError: ``widths`` and ``blocks`` differ in length, a width is no multiple of 8,
            ``patch`` is below 2, or ``image_size`` is no multiple.
    """

    def __init__(
        self,
        # Channels of the stages, multiples of 8; every stage halves the resolution.
        widths: tuple[int, ...] = (32, 64, 128),
        blocks: tuple[int, ...] = (0, 0, 0),  # residual blocks per stage
        image_size: int = 64,  # side of the square input, px; a multiple of the stages' reduction
        # Reduction of the first stage. Above 2 it convolves patches without overlap, which costs
        # a CPU less than stages of 2.
        patch: int = 2,
    ) -> None:
        super().__init__()
        if len(widths) != len(blocks):
            raise ValueError(
                f"vision: widths {list(widths)} and blocks {list(blocks)} must have the same length"
            )
        if any(width % 8 or width < 8 for width in widths):
            raise ValueError(f"vision.widths={list(widths)}: must be multiples of 8")
        if patch < 2:
            raise ValueError(f"vision.patch={patch}: at least 2")
        reduction = patch * 2 ** (len(widths) - 1)
        if image_size % reduction:
            raise ValueError(f"vision.image_size={image_size}: must be a multiple of {reduction}")
        self.width, self.image_size, self.step = widths[-1], image_size, max(1, image_size // 64)
        stages: list[nn.Module] = []
        channels, stride = 3, patch
        for width, count in zip(widths, blocks, strict=True):
            stages.append(_ConvNorm(channels, width, stride, patch=stride > 2))
            stages += [_Block(width) for _ in range(count)]
            channels, stride = width, 2
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(self.width)
        side = image_size // reduction
        self.position_ND = nn.Parameter(sincos_2d(side, self.width))

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Images uint8 (B, 3, H, W) to tokens (B, N, D)."""
        x = images_BCHW.to(self.norm.weight.dtype) / 255.0
        if x.shape[-1] != self.image_size or x.shape[-2] != self.image_size:
            x = nn.functional.interpolate(
                x, (self.image_size, self.image_size), mode="bilinear", antialias=True
            )
        sample = x[:, :, :: self.step, :: self.step]  # the median of all pixels takes longer
        x = (x - sample.flatten(2).median(-1).values[:, :, None, None]) * 3.0
        x = self.stages(x)
        return self.norm(x.flatten(2).transpose(1, 2)) + self.position_ND
