"""Guidance of flow matching towards known actions (real-time chunking, arXiv 2506.07339)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from vla.models.heads.base import KnownActions

MAX_WEIGHT = 5.0  # of the guidance; the paper's beta


def guidance_weights(known: KnownActions) -> torch.Tensor:
    """(B, H) weights of known actions: 1 where frozen, then falling to 0 at their end (Eq. 5).

    A row without frozen steps has the weight 0 everywhere.
    """
    weights = torch.zeros(known.normalized_BHA.shape[:2])
    for row, (frozen, count) in enumerate(zip(known.frozen_B, known.count_B, strict=True)):
        if frozen:
            share = (count - torch.arange(frozen, count)) / (count - frozen + 1)
            weights[row, :frozen] = 1.0
            weights[row, frozen:count] = share * share.expm1() / (math.e - 1)
    return weights.to(known.normalized_BHA)


def guided_velocity(
    velocity: Callable[[torch.Tensor], torch.Tensor],
    x_KHA: torch.Tensor,
    t: float,
    known: KnownActions,
) -> torch.Tensor:
    """The velocity (K, H, A) at ``x_KHA``, corrected so that the chunk ends near known actions.

    Args:
        velocity: gives the uncorrected velocity.
        t: time, 0 to below 1: 0 is noise, 1 is the action.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = x_KHA.clone().requires_grad_()
        plain = velocity(x)
        end = x + (1 - t) * plain
        error = (known.normalized_BHA.to(x) - end.detach()) * guidance_weights(known).to(x)[
            ..., None
        ]
        (correction,) = torch.autograd.grad(end, x, error)
    weight = MAX_WEIGHT if t == 0 else ((1 - t) ** 2 + t**2) / (t * (1 - t))
    return plain.detach() + min(MAX_WEIGHT, weight) * correction
