"""RT-1's eyes: an EfficientNet that hears the instruction (arXiv 2212.06817, section 5.1)."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from vla.pretrained import load_in_order, locate_file
from vla.vision.conv import sincos_2d
from vla.vision.timm import make_timm


class FiLM(nn.Module):
    """Scales and shifts channels by a condition; starts as the identity, so pretrained weights start unharmed."""

    def __init__(self, condition: int, channels: int) -> None:
        super().__init__()
        self.shift_scale = nn.Linear(condition, 2 * channels)
        nn.init.zeros_(self.shift_scale.weight)
        nn.init.zeros_(self.shift_scale.bias)

    def forward(self, x_BCHW: torch.Tensor, condition_BD: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) and (B, D) to (B, C, H, W)."""
        shift, scale = self.shift_scale(condition_BD)[:, :, None, None].chunk(2, 1)
        return x_BCHW * (1 + scale) + shift


class FilmEfficientNet(nn.Module):
    """A timm EfficientNet with FiLM behind every block, and a 1 x 1 convolution to the tokens' width.

    Args:
        model, image_size, weights: as ``TimmEncoder``. stages: so many stages of blocks are used (none: all). condition: width of the sentence.
        width: of the tokens (RT-1: 512). place: add a 2-D sine code (RT-1 has none; small images need it).

    Raises:
        ValueError: the model is no EfficientNet.
    """

    def __init__(
        self, model: str, image_size: int, weights: bool | str, stages: int | None, condition: int, width: int, place: bool, pretrained: bool
    ) -> None:  # fmt: skip
        super().__init__()
        self.image_size = image_size
        net: Any = make_timm(model, image_size, weights is True and pretrained, {})
        if not hasattr(net, "conv_stem") or not hasattr(net, "blocks"):
            raise ValueError(f"policy.model={model!r}: RT-1's eyes must be an EfficientNet of timm")
        if isinstance(weights, str) and pretrained:
            load_in_order(net, locate_file(weights))
        self.stem = nn.Sequential(net.conv_stem, net.bn1)
        self.blocks = nn.ModuleList(b for stage in list(net.blocks)[:stages] for b in stage)
        sizes = [_channels(b) for b in self.blocks]
        self.films = nn.ModuleList(FiLM(condition, c) for c in sizes)
        self.project = nn.Conv2d(sizes[-1], width, 1)
        reduction = 2 * max(1, *(s["reduction"] // 2 for s in net.feature_info[:stages]))
        self.place = place
        self.register_buffer("position_ND", sincos_2d(-(-image_size // reduction), width), persistent=False)
        self.position_ND: torch.Tensor
        data = timm.data.resolve_model_data_config(net)
        for name in ("mean", "std"):
            self.register_buffer(f"{name}_C", torch.tensor(data[name])[:, None, None], persistent=False)
        self.mean_C: torch.Tensor
        self.std_C: torch.Tensor
        self.to(memory_format=torch.channels_last)  # depthwise convolutions on a CPU are faster so

    def forward(self, images_BCHW: torch.Tensor, condition_KD: torch.Tensor, owner_K: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, H, W) and sentences (K, D), each about picture ``owner_K[k]``, to tokens (K, N, width).

        What comes before the first FiLM looks at every picture once, however many sentences are about it.
        """
        x = images_BCHW.float() / 255.0
        if tuple(x.shape[-2:]) != (self.image_size, self.image_size):
            x = nn.functional.interpolate(x, (self.image_size, self.image_size), mode="bicubic", antialias=True)
        x = self.stem(((x - self.mean_C) / self.std_C).contiguous(memory_format=torch.channels_last))
        # index_select: on a CPU the gradient of x[owner] is added by threads in no fixed order
        for k, (block, film) in enumerate(zip(self.blocks, self.films, strict=True)):
            x = film(block(x) if k else block(x).index_select(0, owner_K), condition_KD)
        tokens = self.project(x).flatten(2).transpose(1, 2)
        return tokens + self.position_ND if self.place else tokens


def _channels(block: Any) -> int:
    last = [m for m in block.modules() if isinstance(m, nn.Conv2d)][-1]
    named = getattr(block, "conv_pwl", None) or getattr(block, "conv_pw", None) or last
    return int(named.out_channels)
