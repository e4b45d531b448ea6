"""What of a pretrained part is trained: all of it, nothing, or low-rank additions (peft)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (arXiv 2106.09685). rank; alpha: scale is alpha / rank; targets: names of linear maps, or none: all of them."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"lora.rank={self.rank}: at least 1")


def tune(model: nn.Module, frozen: bool, lora: LoraConfig | None) -> nn.Module:
    """Freeze ``model``, or put adapters into it (its own weights then are frozen), in place.

    Raises:
        ValueError: nothing in it can be adapted.
    """
    if lora is None:
        return model.requires_grad_(False) if frozen else model
    import peft

    target = list(lora.targets) if lora.targets else linear_names(model)
    if not target:
        raise ValueError("lora: this network has no linear maps to adapt; use frozen: true, or neither")
    transposed = any(type(m).__name__ == "Conv1D" for m in model.modules())
    alpha: Any = lora.alpha  # peft takes fractions too, though it says int
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=alpha, lora_dropout=lora.dropout, target_modules=target, fan_in_fan_out=transposed
    )
    peft.inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return model


def linear_names(model: nn.Module) -> list[str]:
    """Full names of the linear (and GPT-2's Conv1D) maps, without the output layer."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    found = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D"]
    outputs = {n for n, m in model.named_modules() if head is not None and m is head}
    return [n for n in found if n not in outputs]


def plain_name(name: str) -> str:
    """The name a weight had before adapters were put around its module."""
    return name.replace(".base_layer.", ".")


def trainable(module: nn.Module) -> tuple[int, int]:
    """(parameters in all, parameters that learn)."""
    parameters: dict[int, torch.Tensor] = {id(p): p for p in module.parameters()}
    return sum(p.numel() for p in parameters.values()), sum(p.numel() for p in parameters.values() if p.requires_grad)
