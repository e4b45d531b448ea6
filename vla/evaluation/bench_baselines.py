"""What ``vla bench`` compares with: Hugging Face's ``generate``, and the memory bandwidth."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import LogitsProcessor

from vla.models.decoders.backbone import find_backbone
from vla.models.decoders.base import Prefix
from vla.models.decoders.causal_texts import CausalTexts
from vla.models.decoders.constraints import TokenConstraint
from vla.models.decoders.masks import structured_attention
from vla.models.decoders.packing import pack_texts
from vla.models.decoders.text import encode
from vla.models.heads.action_texts import action_texts
from vla.utils.device import synchronize

_REPEATS = 15


class _Legal(LogitsProcessor):
    """Gives logits of minus infinity to tokens that a constraint does not allow."""

    def __init__(self, constraint: TokenConstraint) -> None:
        self.constraint, self.count = constraint, 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        for token in input_ids[0, self.count :].tolist():
            self.constraint.push(token)
        self.count = input_ids.shape[1]
        ids = self.constraint.allowed()
        if ids is None:
            return scores
        legal = torch.full_like(scores, -torch.inf)
        legal[:, ids] = scores[:, ids]
        return legal


def constraint_of(head: Any, decoder: Any) -> TokenConstraint:
    """The constraint of the text that a head generates for one row."""
    if hasattr(head, "token_rules"):
        return action_texts(head, decoder, [[]])[0][0]
    plan: TokenConstraint = head.plan_format.free_text(decoder)
    return plan


def generate_baseline(decoder: Any) -> Callable[..., list[int]] | None:
    """``generate`` of the decoder's own weights, for a causal decoder; None for others.

    The function returns greedy token ids: ``count`` of any tokens, which is faster, or a text of
    legal tokens with a ``constraint``.
    """
    if not isinstance(decoder, CausalTexts) or decoder.execution != "packed":
        return None

    def run(
        prefix: Prefix, prompt: str, count: int, constraint: TokenConstraint | None = None
    ) -> list[int]:
        before, positions = decoder._embed_prefix(prefix)
        packed = pack_texts(
            [encode(decoder.tokenizer, prompt)],
            torch.zeros(1, dtype=torch.long, device=before.device),
            1,
            positions,
            decoder.tokenizer.pad_token_id,
            causal_prefix=decoder.image_attention == "causal",
        )
        embeds = torch.cat([before, decoder.embed(packed.ids_BS).to(before.dtype)], 1)
        with structured_attention(packed.structure):
            out = decoder.lm.generate(
                inputs_embeds=embeds,
                attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long, device=before.device),
                position_ids=packed.positions_BL,
                max_new_tokens=count,
                min_new_tokens=count if constraint is None else None,
                do_sample=False,
                logits_processor=[] if constraint is None else [_Legal(constraint)],
                pad_token_id=decoder.tokenizer.pad_token_id,
            )
        ids: list[int] = out[0].tolist()
        return ids

    return run


def read_time_ms(decoder: Any) -> float:
    """Median time to read the weights of a decoder's layers once, in ms: the bound of a step.

    It is measured as a matrix-vector product with as many bytes. The table of input embeddings is
    not included, because a step reads few of its rows.
    """
    backbone = find_backbone(decoder.lm) if isinstance(decoder, CausalTexts) else decoder.lm
    table = decoder.lm.get_input_embeddings().weight
    size = sum(p.numel() * p.element_size() for p in backbone.parameters() if p is not table)
    matrix = torch.ones(max(size // 4 // 1024, 1), 1024, device=table.device)
    vector, times = torch.ones(1024, device=table.device), []
    for _ in range(_REPEATS):
        begun = time.perf_counter()
        torch.mv(matrix, vector)
        synchronize(table.device)
        times.append(1e3 * (time.perf_counter() - begun))
    return round(statistics.median(times), 4)
