"""RT-1's vision encoder: EfficientNet conditioned on the instruction by FiLM (arXiv 2212.06817)."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from vla.models.pretrained import load_by_name_or_order, locate_file
from vla.models.vision.network import check_name, timm_model
from vla.models.vision.positions import sincos_2d


class FiLM(nn.Module):
    """Scales and shifts channels by a condition (arXiv 1709.07871).

    It starts as the identity, so that pretrained weights are unchanged at first.
    """

    def __init__(self, condition: int, channels: int) -> None:
        super().__init__()
        self.shift_scale = nn.Linear(condition, 2 * channels)
        nn.init.zeros_(self.shift_scale.weight)
        nn.init.zeros_(self.shift_scale.bias)

    def forward(self, x_BCHW: torch.Tensor, condition_BD: torch.Tensor) -> torch.Tensor:
        """Feature maps (B, C, H, W) and conditions (B, D) to (B, C, H, W)."""
        shift, scale = self.shift_scale(condition_BD)[:, :, None, None].chunk(2, 1)
        return x_BCHW * (1 + scale) + shift


class FilmEfficientNet(nn.Module):
    """A timm EfficientNet with FiLM after every block, and a 1x1 convolution to the token width.

    Args:
        model, image_size, weights: see ``TimmEncoder``.
        stages: number of stages to use; None: all.
        condition: width of the sentence embedding.
        width: of the tokens (RT-1: 512).
        position_embedding: add a 2-D sine code (RT-1 has none; small images need it).

    Raises:
        ValueError: the model is no EfficientNet.
    """

    def __init__(
        self,
        model: str,
        image_size: int,
        weights: bool | str,
        stages: int | None,
        condition: int,
        width: int,
        position_embedding: bool,
        pretrained: bool,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        check_name(model)
        net: Any = timm_model(model, image_size, weights is True and pretrained, {})
        if not hasattr(net, "conv_stem") or not hasattr(net, "blocks"):
            raise ValueError(f"policy.model={model!r}: RT-1 needs an EfficientNet of timm")
        if isinstance(weights, str) and pretrained:
            load_by_name_or_order(net, locate_file(weights))
        self.stem = nn.Sequential(net.conv_stem, net.bn1)
        self.blocks = nn.ModuleList(b for stage in list(net.blocks)[:stages] for b in stage)
        sizes = [_channels(b) for b in self.blocks]
        self.films = nn.ModuleList(FiLM(condition, c) for c in sizes)
        self.project = nn.Conv2d(sizes[-1], width, 1)
        reduction = 2 * max(1, *(s["reduction"] // 2 for s in net.feature_info[:stages]))
        self.position_embedding = position_embedding
        self.register_buffer(
            "position_ND", sincos_2d(-(-image_size // reduction), width), persistent=False
        )
        self.position_ND: torch.Tensor
        data = timm.data.resolve_model_data_config(net)
        for name in ("mean", "std"):
            self.register_buffer(
                f"{name}_C", torch.tensor(data[name])[:, None, None], persistent=False
            )
        self.mean_C: torch.Tensor
        self.std_C: torch.Tensor
        # Depthwise convolutions on a CPU are faster in this memory format.
        self.to(memory_format=torch.channels_last)

    def forward(
        self, images_BCHW: torch.Tensor, condition_KD: torch.Tensor, image_index_K: torch.Tensor
    ) -> torch.Tensor:
        """Images uint8 (B, 3, H, W) and sentence embeddings (K, D) to tokens (K, N, width).

        Sentence k belongs to image ``image_index_K[k]``. The layers before the first FiLM run once
        per image.
        """
        x = images_BCHW.float() / 255.0
        if tuple(x.shape[-2:]) != (self.image_size, self.image_size):
            x = nn.functional.interpolate(
                x, (self.image_size, self.image_size), mode="bicubic", antialias=True
            )
        x = (x - self.mean_C) / self.std_C
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        # index_select: on a CPU the gradient of x[image_index_K] is summed in no fixed order.
        for k, (block, film) in enumerate(zip(self.blocks, self.films, strict=True)):
            x = film(block(x) if k else block(x).index_select(0, image_index_K), condition_KD)
        tokens = self.project(x).flatten(2).transpose(1, 2)
        return tokens + self.position_ND if self.position_embedding else tokens


def _channels(block: Any) -> int:
    last = [m for m in block.modules() if isinstance(m, nn.Conv2d)][-1]
    named = getattr(block, "conv_pwl", None) or getattr(block, "conv_pw", None) or last
    return int(named.out_channels)
