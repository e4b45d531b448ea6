"""Optimiser, parameter groups and learning rate schedule."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from vla.training.config import OptimConfig


def make_optimizer(
    module: nn.Module, config: OptimConfig, steps: int, fused: bool = True
) -> dict[str, Any]:
    """AdamW and its schedule over ``steps`` optimiser steps, in Lightning's format.

    fused: update all parameters on a CPU in one operation. Lightning refuses to clip the gradients
    of such an optimiser in mixed precision.

    Raises:
        ValueError: a name in ``lr_multipliers`` or ``frozen`` matches no trainable parameter.
    """
    _freeze(module, config.frozen)
    trainable = {n: p for n, p in module.named_parameters() if p.requires_grad}
    if not trainable:
        raise ValueError("optim.frozen: no trainable parameter is left; remove a name")
    for part in config.lr_multipliers:
        if not any(_within(name, part) for name in trainable):
            parts = ", ".join(sorted({name.split(".")[0] for name in trainable}))
            raise ValueError(
                f"optim.lr_multipliers.{part}: no trainable parameter has this name; parts: {parts}"
            )
    peak = config.lr * config.lr_scale
    groups = _parameter_groups(trainable, config, peak)
    fused = fused and all(p.device.type == "cpu" for p in trainable.values())
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=config.betas, fused=fused or None)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: lr_factor(config, s, steps))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _freeze(module: nn.Module, parts: list[str]) -> None:
    for part in parts:
        found = [p for n, p in module.named_parameters() if _within(n, part)]
        if not found:
            names = ", ".join(n for n, _ in module.named_children())
            raise ValueError(
                f"optim.frozen: the policy has no parameters in {part!r}; parts: {names}"
            )
        for parameter in found:
            parameter.requires_grad_(False)


def _parameter_groups(
    trainable: dict[str, nn.Parameter], config: OptimConfig, peak: float
) -> list[dict[str, Any]]:
    """One group with weight decay and one without, for the policy and for each multiplied part.

    timm.optim.param_groups_weight_decay has no multipliers by name, and another order of groups,
    with which old checkpoints could not continue.
    """
    groups = []
    for part in (None, *config.lr_multipliers):
        members = [p for n, p in trainable.items() if _part(n, config.lr_multipliers) == part]
        lr = peak * (1.0 if part is None else config.lr_multipliers[part])
        matrices = [p for p in members if p.ndim >= 2]
        vectors = [p for p in members if p.ndim < 2]
        for parameters, decay in ((matrices, config.weight_decay), (vectors, 0.0)):
            if parameters:
                groups.append({"params": parameters, "weight_decay": decay, "lr": lr})
    return groups


def _within(name: str, part: str) -> bool:
    """True if the parameter belongs to the part."""
    return name == part or name.startswith(part + ".")


def _part(name: str, parts: dict[str, float]) -> str | None:
    """The longest of ``parts`` to which a parameter belongs."""
    return max((p for p in parts if _within(name, p)), key=len, default=None)


def lr_factor(config: OptimConfig, step: int, steps: int) -> float:
    """Learning rate of a step divided by the learning rate after warm-up."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    done = min(1.0, (step - config.warmup_steps) / max(1, steps - config.warmup_steps))
    left = 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return config.min_lr_ratio + (1 - config.min_lr_ratio) * left
