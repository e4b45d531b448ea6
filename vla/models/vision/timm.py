"""Any timm model as the vision encoder."""

from __future__ import annotations

from typing import Any, ClassVar

import timm
import torch
from torch import nn

from vla.config import register
from vla.models.lora import LoraConfig, apply_finetuning
from vla.models.pretrained import load_by_name_or_order, locate_file
from vla.models.vision.network import (
    check_name,
    features,
    normalises,
    timm_model,
    try_network,
)
from vla.models.vision.positions import sincos_2d
from vla.models.vision.proof import require_family


@register("vision", "timm")
class TimmEncoder(nn.Module):
    """One token per patch of a transformer, or per cell of a convolutional network's map.

    Resizes images and applies the model's own mean and standard deviation. Networks without
    position embeddings get a 2-D sine code. Weights that have no influence on the tokens are
    frozen.

    Raises:
        ConfigError: the family of the model fails the start-up proof.
        ValueError: timm has no such model, or the model has no such layer, option or image size.
    """

    # Options of a small instance, for vla.testing.
    example: ClassVar[dict[str, Any]] = {
        "model": "vit_tiny_patch16_224",
        "image_size": 32,
        "options": {"depth": 1},
    }

    def __init__(
        self,
        model: str,  # timm model name
        image_size: int = 224,  # side of the square input, px; timm resizes position embeddings
        # true: timm's weights (cache or hub); a path or package:NAME/PATH: a state dict of the
        # same architecture, matched by name or order; false: random weights.
        weights: bool | str = False,
        layer: int = -1,  # block or stage whose output is used; -1 is the last
        frozen: bool = False,  # do not train the encoder
        lora: LoraConfig | None = None,  # train low-rank adapters instead of the weights
        options: dict[str, Any] | None = None,  # further arguments of timm.create_model
        *,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        check_name(model)
        if pretrained:
            require_family(model)
        self.image_size = image_size
        download = weights is True and pretrained
        self.net: Any = timm_model(model, image_size, download, options or {})
        if isinstance(weights, str) and pretrained:
            load_by_name_or_order(self.net, locate_file(weights))
        if not hasattr(self.net, "forward_intermediates"):
            raise ValueError(
                f"vision.model={model!r}: timm does not expose the layers of this network "
                "(no forward_intermediates); choose another model"
            )
        stages = [s["num_chs"] for s in self.net.feature_info]
        if not -len(stages) <= layer < len(stages):
            raise ValueError(
                f"vision.layer={layer}: {model} has {len(stages)} layers "
                f"(0 to {len(stages) - 1}, or negative from the end)"
            )
        self.width = int(stages[layer])
        self.layer = self.net.prune_intermediate_layers(
            [layer % len(stages)], prune_norm=False, prune_head=True
        )
        self.has_positions = getattr(self.net, "pos_embed", None) is not None
        self.normalises = normalises(self.net)
        side = try_network(self.net, model, image_size, self.layer, self.width, self.normalises)
        if not (self.has_positions and self.normalises):
            self.norm = nn.LayerNorm(self.width)
        if not self.has_positions:
            self.register_buffer("position_ND", sincos_2d(side, self.width), persistent=False)
            self.position_ND: torch.Tensor
        data = timm.data.resolve_model_data_config(self.net)
        for name in ("mean", "std"):
            self.register_buffer(
                f"{name}_C", torch.tensor(data[name])[:, None, None], persistent=False
            )
        self.mean_C: torch.Tensor
        self.std_C: torch.Tensor
        apply_finetuning(self.net, frozen, lora)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Images uint8 (B, 3, H, W) to tokens (B, N, D)."""
        x = images_BCHW.float() / 255.0
        if tuple(x.shape[-2:]) != (self.image_size, self.image_size):
            x = nn.functional.interpolate(
                x, (self.image_size, self.image_size), mode="bicubic", antialias=True
            )
        x = (x - self.mean_C) / self.std_C
        x = features(self.net, x, self.layer, self.normalises)
        tokens = x.flatten(2).transpose(1, 2)
        if not (self.has_positions and self.normalises):
            tokens = self.norm(tokens)
        return tokens if self.has_positions else tokens + self.position_ND
