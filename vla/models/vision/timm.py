"""Any timm model as the vision encoder."""

from __future__ import annotations

from typing import Any, ClassVar

import timm
import torch
from torch import nn

from vla.config import register
from vla.models.lora import LoraConfig, apply_finetuning
from vla.models.pretrained import explain_download_errors, load_by_name_or_order, locate_file
from vla.models.vision.positions import sincos_2d


@register("vision", "timm")
class TimmEncoder(nn.Module):
    """One token per patch of a transformer, or per cell of a convolutional network's map.

    Resizes images and applies the model's own mean and standard deviation. Networks without
    position embeddings get a 2-D sine code.

    Raises:
        ValueError: timm has no such model, or the model has no such layer.
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
        if not timm.is_model(model):
            close = timm.list_models(f"*{model.split('_')[0]}*")[:5]
            raise ValueError(
                f"vision.model={model!r}: timm has no such model; "
                f"similar: {', '.join(close) or 'none'}"
            )
        self.image_size, self.frozen = image_size, frozen
        with explain_download_errors(model):
            download = weights is True and pretrained
            self.net: Any = make_timm(model, image_size, download, options or {})
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
        if not self.has_positions:
            self.norm = nn.LayerNorm(self.width)
            reduction = int(self.net.feature_info[layer]["reduction"])
            self.register_buffer(
                "position_ND", sincos_2d(-(-image_size // reduction), self.width), persistent=False
            )
            self.position_ND: torch.Tensor
        data = timm.data.resolve_model_data_config(self.net)
        for name in ("mean", "std"):
            self.register_buffer(
                f"{name}_C", torch.tensor(data[name])[:, None, None], persistent=False
            )
        self.mean_C: torch.Tensor
        self.std_C: torch.Tensor
        apply_finetuning(self.net, frozen, lora)

    def train(self, mode: bool = True) -> TimmEncoder:
        """Set the training mode; a frozen network stays in evaluation mode.

        Its batch statistics are weights, which training mode would change.
        """
        super().train(mode)
        if self.frozen:
            self.net.eval()
        return self

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Images uint8 (B, 3, H, W) to tokens (B, N, D)."""
        x = images_BCHW.float() / 255.0
        if tuple(x.shape[-2:]) != (self.image_size, self.image_size):
            x = nn.functional.interpolate(
                x, (self.image_size, self.image_size), mode="bicubic", antialias=True
            )
        x = (x - self.mean_C) / self.std_C
        x = self.net.forward_intermediates(
            x, indices=self.layer, norm=True, output_fmt="NCHW", intermediates_only=True
        )[0]
        tokens = x.flatten(2).transpose(1, 2)
        return tokens if self.has_positions else self.norm(tokens) + self.position_ND


def make_timm(model: str, image_size: int, pretrained: bool, options: dict[str, Any]) -> Any:
    """A timm model without classifier for inputs of this size."""
    try:
        return timm.create_model(
            model, pretrained=pretrained, num_classes=0, img_size=image_size, **options
        )
    except TypeError:  # convolutional networks accept any size and have no such argument
        return timm.create_model(model, pretrained=pretrained, num_classes=0, **options)
