"""Any timm model as the vision encoder."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from vla.config import register
from vla.pretrained import explain, load_in_order, locate_file
from vla.tuning import LoraConfig, tune
from vla.vision.conv import sincos_2d


@register("vision", "timm")
class TimmEncoder(nn.Module):
    """Tokens of a timm model: one for every patch of a transformer, or for every cell of a convolutional network's map.

    Owns resize and the model's own mean and standard deviation. Networks without position embeddings of their own get a 2-D sine code.

    Args:
        model: timm name. image_size: px, square (position embeddings are interpolated by timm).
        weights: True: timm's own (from the local cache or the hub); a file or ``package:`` path: a state dict of the same architecture,
        by name or, under other names, in the same order. layer: index of the block or stage whose output is used (-1: last).
        frozen, lora: what is trained, see ``vla.tuning``. options: further arguments of ``timm.create_model``.
    """

    def __init__(
        self, model: str, image_size: int = 224, weights: bool | str = False, layer: int = -1, frozen: bool = False, lora: LoraConfig | None = None,
        options: dict[str, Any] | None = None, *, pretrained: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if not timm.is_model(model):
            close = timm.list_models(f"*{model.split('_')[0]}*")[:5]
            raise ValueError(f"vision.model={model!r}: timm has no such model; similar: {', '.join(close) or 'none'}")
        self.image_size, self.frozen = image_size, frozen
        with explain(model):
            self.net: Any = make_timm(model, image_size, weights is True and pretrained, options or {})
        if isinstance(weights, str) and pretrained:
            load_in_order(self.net, locate_file(weights))
        if not hasattr(self.net, "forward_intermediates"):
            raise ValueError(f"vision.model={model!r}: this network cannot show its inner layers (no forward_intermediates)")
        stages = [s["num_chs"] for s in self.net.feature_info]
        if not -len(stages) <= layer < len(stages):
            raise ValueError(f"vision.layer={layer}: {model} has {len(stages)} (0 to {len(stages) - 1}, or negative from the end)")
        self.width = int(stages[layer])
        self.layer = self.net.prune_intermediate_layers([layer % len(stages)], prune_norm=False, prune_head=True)
        self.placed = getattr(self.net, "pos_embed", None) is not None
        if not self.placed:
            self.norm = nn.LayerNorm(self.width)
            reduction = int(self.net.feature_info[layer]["reduction"])
            self.register_buffer("position_ND", sincos_2d(-(-image_size // reduction), self.width), persistent=False)
            self.position_ND: torch.Tensor
        data = timm.data.resolve_model_data_config(self.net)
        for name in ("mean", "std"):
            self.register_buffer(f"{name}_C", torch.tensor(data[name])[:, None, None], persistent=False)
        self.mean_C: torch.Tensor
        self.std_C: torch.Tensor
        tune(self.net, frozen, lora)

    def train(self, mode: bool = True) -> TimmEncoder:
        """A frozen network stays in evaluation mode: its batch statistics are part of its weights."""
        super().train(mode)
        if self.frozen:
            self.net.eval()
        return self

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, H, W) to (B, N, D)."""
        x = images_BCHW.float() / 255.0
        if tuple(x.shape[-2:]) != (self.image_size, self.image_size):
            x = nn.functional.interpolate(x, (self.image_size, self.image_size), mode="bicubic", antialias=True)
        x = (x - self.mean_C) / self.std_C
        x = self.net.forward_intermediates(x, indices=self.layer, norm=True, output_fmt="NCHW", intermediates_only=True)[0]
        tokens = x.flatten(2).transpose(1, 2)
        return tokens if self.placed else self.norm(tokens) + self.position_ND


def make_timm(model: str, image_size: int, pretrained: bool, options: dict[str, Any]) -> Any:
    """A timm model without classifier, for this input size where that is part of its shape."""
    try:
        return timm.create_model(model, pretrained=pretrained, num_classes=0, img_size=image_size, **options)
    except TypeError:  # convolutional networks take any size and no such argument
        return timm.create_model(model, pretrained=pretrained, num_classes=0, **options)
