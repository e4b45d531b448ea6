"""Optimiser, parameter groups and schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with warm-up. lr: peak; warmup: steps; schedule: after warm-up; final: share of lr at the end; clip: gradient norm."""

    lr: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: int = 100
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    final: float = 0.02
    clip: float = 1.0


def make_optimizer(module: nn.Module, config: OptimConfig, steps: int) -> dict[str, Any]:
    """AdamW (no decay on vectors) and a schedule over ``steps`` optimiser steps, in Lightning's form."""
    matrices = [p for p in module.parameters() if p.requires_grad and p.ndim >= 2]
    vectors = [p for p in module.parameters() if p.requires_grad and p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)

    def scale(step: int) -> float:
        if step < config.warmup:
            return (step + 1) / config.warmup
        share = min(1.0, (step - config.warmup) / max(1, steps - config.warmup))
        if config.schedule == "constant":
            return 1.0
        falling = 1 - share if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * share))
        return config.final + (1 - config.final) * falling

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
