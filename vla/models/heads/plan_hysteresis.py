"""Hysteresis of plans: keep the previous plan unless a new one is clearly more likely.

Without it, a policy that plans at every step can alternate between two equally likely plans.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from vla.models.decoders.base import Decoder, Prefix
from vla.models.decoders.text import text_loss


@torch.no_grad()
def rows_keeping_previous_plan(
    decoder: Decoder,
    prefix: Prefix,
    prompts: Sequence[str],
    previous_plans: Sequence[str],
    new_plans: Sequence[str],
    plan_ids: Callable[[str], list[int]],
    margin: float,
) -> list[int]:
    """Rows (of B) that keep their previous plan.

    A new plan must be more likely than the previous one by ``margin`` nats.

    Args:
        previous_plans: one per row, empty if a row has none; an empty list if no row has one.
        plan_ids: token ids between prompt and action for a plan.
    """
    if not previous_plans:
        return []
    pairs = enumerate(zip(previous_plans, new_plans, strict=True))
    rows = [row for row, (previous, new) in pairs if previous and previous != new]
    if not rows:
        return []
    target_ids = [plan_ids(plan) for r in rows for plan in (previous_plans[r], new_plans[r])]
    image_index = torch.tensor(rows, device=prefix.tokens_BND.device).repeat_interleave(2)
    texts = [prompts[r] for r in rows for _ in range(2)]
    out = text_loss(decoder, prefix, image_index, texts, target_ids)
    nats = torch.zeros(len(target_ids), device=out.loss_M.device)
    nats = nats.index_add_(0, out.text_M, out.loss_M).unflatten(0, (-1, 2))
    return [
        r for r, (previous, new) in zip(rows, nats.tolist(), strict=True) if previous < new + margin
    ]
