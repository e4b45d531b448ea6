"""Any timm model as the vision encoder."""

from __future__ import annotations

import difflib
from typing import Any, ClassVar

import timm
import torch
from torch import nn

from vla.config import register
from vla.models.lora import LoraConfig, apply_finetuning
from vla.models.pretrained import load_by_name_or_order, load_pretrained, locate_file
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
        check_name(model)
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


def check_name(model: str) -> None:
    """Raise ValueError with the nearest names if timm has no such model or no such weights."""
    name, _, tag = model.partition(".")
    tagged = timm.list_models(pretrained=True)
    if timm.is_model(model) and (not tag or model in tagged):
        return
    if timm.is_model(model):
        tags = [n for n in tagged if n.partition(".")[0] == name]
        raise ValueError(
            f"vision.model={model!r}: timm has no weights {tag!r} for {name}; "
            f"it has {', '.join(tags) or 'none'}"
        )
    word = model.lower().replace("-", "_").removeprefix("timm/")
    names = [*timm.list_models(), *tagged]
    close = [n for n in (word,) if n in names] or difflib.get_close_matches(word, names, 3, 0.7)
    close = close or [n for n in timm.list_models() if word.split("_")[0] in n][:3]
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "no name is similar."
    raise ValueError(
        f"vision.model={model!r}: timm has no such model; {hint} "
        'All names: python -c "import timm; print(timm.list_models())"'
    )


def timm_model(model: str, image_size: int, download: bool, options: dict[str, Any]) -> Any:
    """A timm model without classifier for inputs of this size; weights of the hub, or random ones.

    Raises:
        ValueError: the model has no such option, or no such size.
        PretrainedError: the weights cannot be downloaded.
    """
    if image_size < 1:
        raise ValueError(f"vision.image_size={image_size}: expected at least 1 px")
    if download:
        return load_pretrained(model, lambda: _create(model, image_size, True, options))
    return _create(model, image_size, False, options)


def _create(model: str, image_size: int, pretrained: bool, options: dict[str, Any]) -> Any:
    arguments = {"pretrained": pretrained, "num_classes": 0, **options}
    try:
        return timm.create_model(model, img_size=image_size, **arguments)
    except TypeError:  # convolutional networks accept any size and have no such argument
        pass
    try:
        return timm.create_model(model, **arguments)
    except TypeError as error:
        for key in options:
            if f"'{key}'" in str(error):
                raise ValueError(
                    f"vision.options.{key}: timm's {model} has no such option; remove it"
                ) from error
        raise ValueError(f"vision.options={options}: timm's {model} says: {error}") from error
