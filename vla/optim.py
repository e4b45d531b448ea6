"""Optimiser, parameter groups and schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with warm-up. lr: peak; warmup: steps; schedule: after warm-up; final: share of lr at the end; clip: gradient norm;
    factor: of every rate here, for what has to change it whatever a run's lr is (the sizes of a ladder);
    parts: factors of lr for parts of the policy, by name (``{vision: 0.1, decoder.lm: 0.3}``; the longest name that fits counts);
    frozen: parts that do not learn at all (``[vision, connector, decoder]``: only the heads learn)."""

    lr: float = 1e-3
    factor: float = 1.0
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: int = 100
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    final: float = 0.02
    clip: float = 1.0
    parts: dict[str, float] = field(default_factory=dict)
    frozen: list[str] = field(default_factory=list)


def _within(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


def _part(name: str, parts: dict[str, float]) -> str | None:
    """The longest of ``parts`` that a parameter's name is in."""
    return max((p for p in parts if _within(name, p)), key=len, default=None)


def make_optimizer(module: nn.Module, config: OptimConfig, steps: int) -> dict[str, Any]:
    """AdamW (no decay on vectors) and a schedule over ``steps`` optimiser steps, in Lightning's form.

    Raises:
        ValueError: a name in ``parts`` or ``frozen`` fits nothing that learns, or nothing is left to learn.
    """
    for part in config.frozen:
        found = [p for n, p in module.named_parameters() if _within(n, part)]
        if not found:
            raise ValueError(
                f"optim.frozen: {part!r} is no part of this policy; parts: {', '.join(n for n, _ in module.named_children())}"
            )
        for parameter in found:
            parameter.requires_grad_(False)
    learning = {n: p for n, p in module.named_parameters() if p.requires_grad}
    if not learning:
        raise ValueError("optim.frozen: nothing is left to learn")
    idle = [part for part in config.parts if not any(_within(n, part) for n in learning)]
    if idle:
        raise ValueError(
            f"optim.parts.{idle[0]}: nothing that learns has this name; parts: {', '.join(sorted({n.split('.')[0] for n in learning}))}"
        )
    groups, peak = [], config.lr * config.factor
    for name in (None, *config.parts):
        own = [p for n, p in learning.items() if _part(n, config.parts) == name]
        lr = peak * (1.0 if name is None else config.parts[name])
        for members, decay in (([p for p in own if p.ndim >= 2], config.weight_decay), ([p for p in own if p.ndim < 2], 0.0)):
            if members:
                groups.append({"params": members, "weight_decay": decay, "lr": lr})
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=config.betas)

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
