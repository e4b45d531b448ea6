"""Plans that last: a policy that plans anew at every step may go back and forth between two things that it cannot tell apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from vla.decoders.base import Decoder, Prefix
from vla.decoders.text import text_loss


@torch.no_grad()
def staying(
    decoder: Decoder, prefix: Prefix, prompts: Sequence[str], before: Sequence[str], now: Sequence[str], written: Callable[[str], list[int]], nats: float,
) -> list[int]:  # fmt: skip
    """Rows (of B) whose plan of the step before (an empty text, or no texts at all: none) stays, because the present one is not ``nats`` likelier. written: token ids of a plan
    as it stands between prompt and action."""
    rows = [r for r, (old, new) in enumerate(zip(before, now, strict=True)) if old and old != new] if before else []
    if not rows:
        return []
    targets = [written(plan) for r in rows for plan in (before[r], now[r])]
    owner = torch.tensor(rows, device=prefix.tokens_BND.device).repeat_interleave(2)
    out = text_loss(decoder, prefix, owner, [prompts[r] for r in rows for _ in range(2)], targets)
    surprise = torch.zeros(len(targets), device=out.loss_M.device).index_add_(0, out.text_M, out.loss_M).unflatten(0, (-1, 2))
    return [r for r, (old, new) in zip(rows, surprise.tolist(), strict=True) if old < new + nats]
