"""Any timm model as the vision encoder."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from vla.config import register
from vla.vision.conv import sincos_2d


@register("vision", "timm")
class TimmEncoder(nn.Module):
    """Tokens of a timm model: a ViT's patch tokens, or one token a cell of a convolutional network's feature map.

    Owns resize and the model's own mean and standard deviation. Feature maps get a 2-D sine position code; ViTs have their own.

    Args:
        model: timm name. image_size: px, square (ViT position embeddings are interpolated by timm).
        weights: load timm's pretrained weights (from the local cache or the hub). layer: index of the feature stage for
        convolutional networks (-1: last). frozen: no gradient. options: further arguments of ``timm.create_model``.
    """

    def __init__(
        self, model: str, image_size: int = 224, weights: bool = False, layer: int = -1, frozen: bool = False,
        options: dict[str, Any] | None = None, *, pretrained: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if not timm.is_model(model):
            close = timm.list_models(f"*{model.split('_')[0]}*")[:5]
            raise ValueError(f"vision.model={model!r}: timm has no such model; similar: {', '.join(close) or 'none'}")
        load, extra = weights and pretrained, dict(options or {})
        self.image_size, self.frozen = image_size, frozen
        # transformers are created whole; convolutional networks as feature pyramids
        self.is_map = "patch" not in model
        if self.is_map:
            self.net: Any = timm.create_model(model, pretrained=load, features_only=True, **extra)
            info: Any = self.net.feature_info
            self.layer = layer % len(info.channels())
            self.width = int(info.channels()[self.layer])
            side = -(-image_size // int(info.reduction()[self.layer]))
            self.register_buffer("position_ND", sincos_2d(side, self.width), persistent=False)
            self.norm = nn.LayerNorm(self.width)
        else:
            self.net = timm.create_model(model, pretrained=load, img_size=image_size, num_classes=0, global_pool="", **extra)
            self.width = int(self.net.num_features)
        data = timm.data.resolve_model_data_config(self.net)
        self.register_buffer("mean_C", torch.tensor(data["mean"])[:, None, None], persistent=False)
        self.mean_C: torch.Tensor
        self.std_C: torch.Tensor
        self.position_ND: torch.Tensor
        self.register_buffer("std_C", torch.tensor(data["std"])[:, None, None], persistent=False)
        if frozen:
            self.net.requires_grad_(False)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, H, W) to (B, N, D)."""
        x = images_BCHW.float() / 255.0
        if tuple(x.shape[-2:]) != (self.image_size, self.image_size):
            x = nn.functional.interpolate(x, (self.image_size, self.image_size), mode="bicubic", antialias=True)
        x = (x - self.mean_C) / self.std_C
        if not self.is_map:
            return self.net.forward_features(x)[:, self.net.num_prefix_tokens :]
        return self.norm(self.net(x)[self.layer].flatten(2).transpose(1, 2)) + self.position_ND
