"""Fine-tuning of pretrained networks: all weights, none, or low-rank adapters (peft)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

# peft imports bitsandbytes, which warns about kernels for inference that are not used here.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
# It imports torchao, too, whose classes are registered in a way that torch will no longer need.
logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
# Model types for which peft refuses adapters at ``out_proj``.
_STATE_SPACE = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (arXiv 2106.09685)."""

    rank: int = 16  # rank of the adapters, at least 1
    alpha: float = 32.0  # the adapters' output is scaled by alpha / rank
    dropout: float = 0.0  # dropout probability before the adapters, 0 to 1
    targets: tuple[str, ...] | None = None  # names of linear layers; null: all linear layers

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"lora.rank={self.rank}: at least 1")


def apply_finetuning(model: nn.Module, frozen: bool, lora: LoraConfig | None) -> nn.Module:
    """Freeze ``model`` or add adapters to it, in place; adapters freeze the model's own weights.

    Raises:
        ValueError: ``lora`` is given and the model has no linear layers.
    """
    if lora is None:
        return model.requires_grad_(False) if frozen else model
    import peft

    target = list(lora.targets) if lora.targets else linear_names(model)
    if not target:
        raise ValueError(
            "lora: this network has no linear layers to adapt; set frozen: true, or remove lora"
        )
    transposed = any(type(m).__name__ == "Conv1D" for m in model.modules())
    alpha: Any = lora.alpha  # peft accepts fractions, although its annotation says int
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=alpha,
        lora_dropout=lora.dropout,
        target_modules=target,
        fan_in_fan_out=transposed,
    )
    peft.inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return model


@contextmanager
def merged_adapters(model: nn.Module) -> Iterator[int]:
    """Adapters are part of the weights inside the block; afterwards both are exactly as before.

    Yields:
        The number of merged layers; 0 for a network without adapters.
    """
    import peft.tuners.tuners_utils as tuners

    layers: list[Any] = [m for m in model.modules() if isinstance(m, tuners.BaseTunerLayer)]
    weights = [layer.get_base_layer().weight for layer in layers]
    copies = [weight.data.clone() for weight in weights]
    try:
        for layer in layers:
            layer.merge()
        yield len(layers)
    finally:
        # ``unmerge`` subtracts, which rounds.
        for layer, weight, copy in zip(layers, weights, copies, strict=True):
            layer.merged_adapters = []
            layer.get_base_layer().weight = weight
            weight.data = copy


def merge_adapters(model: nn.Module) -> int:
    """Make adapters part of the weights for good; the number of layers that had adapters.

    Raises:
        ValueError: the weights of a layer are quantised, or a merged weight is not finite.
    """
    import peft.tuners.tuners_utils as tuners

    layers = {n: m for n, m in model.named_modules() if isinstance(m, tuners.BaseTunerLayer)}
    for name, layer in layers.items():
        weight = layer.get_base_layer().weight
        if not isinstance(weight, torch.Tensor) or not weight.is_floating_point():
            raise ValueError(
                f"{name}: adapters cannot be merged into {type(weight).__name__} weights without "
                "an error; save the policy first, which converts them to full precision"
            )
        layer.merge(safe_merge=True)
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, layer.get_base_layer())
    return len(layers)


def linear_names(model: nn.Module) -> list[str]:
    """Full names of the linear layers (and GPT-2's Conv1D) that adapters can change.

    The output layer is left out, and routers of experts. So is ``out_proj`` of state-space models:
    their fast kernels read its weight and would ignore an adapter.
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()
    found = [
        n
        for n, m in model.named_modules()
        if (isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D")
        and not type(m).__name__.endswith("Router")
    ]
    outputs = {n for n, m in model.named_modules() if head is not None and m is head}
    kernels = getattr(getattr(model, "config", None), "model_type", None) in _STATE_SPACE
    return [n for n in found if n not in outputs and not (kernels and n.endswith(".out_proj"))]


def plain_name(name: str) -> str:
    """The name of a weight without the level that adapters add."""
    return name.replace(".base_layer.", ".")


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """(number of all parameters, number of trainable parameters); tied weights count once."""
    parameters: dict[int, torch.Tensor] = {id(p): p for p in module.parameters()}
    return sum(p.numel() for p in parameters.values()), sum(
        p.numel() for p in parameters.values() if p.requires_grad
    )
