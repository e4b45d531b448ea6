"""Decoding of one row of a causal model with a key-value cache of fixed size."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from transformers import StaticCache
from transformers.cache_utils import StaticLayer

from vla.models.decoders.backbone import find_backbone
from vla.models.decoders.base import DecodingState, Prefix
from vla.models.decoders.fast_steps import Step
from vla.models.decoders.language import cache_argument
from vla.models.decoders.text import encode

log = logging.getLogger(__name__)
# Columns of a pass on a GPU, where every number of columns is a CUDA graph of its own.
_BUCKETS = (2, 4, 8, 16, 32)


class StaticDecoding:
    """``prefill``, ``decode_step`` and ``keep`` of ``Decoder`` for one row.

    A row is one sequence without padding, so the place of a token in the cache is its number. A
    text that does not fit continues with the ordinary cache.

    Args:
        decoder: a ``CausalTexts`` in evaluation mode with full attention in every layer.
        capacity: tokens of the cache, the image's included.

    Attributes:
        plain: the pass of the model.
        form: name of the form of the pass that is used.
    """

    def __init__(self, decoder: Any, capacity: int) -> None:
        self.decoder, self.capacity = decoder, capacity
        self.cache = StaticCache(config=decoder.lm.config, max_cache_len=capacity)
        self.on_gpu = decoder.lm.device.type == "cuda"
        backbone = find_backbone(decoder.lm)
        name = cache_argument(backbone)

        def step(
            embeds: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor, start: torch.Tensor
        ) -> torch.Tensor:
            layers: Any = self.cache.layers
            for layer in layers:
                layer.cumulative_length.copy_(start)
            given = {"inputs_embeds": embeds, "position_ids": positions, "attention_mask": mask}
            out: torch.Tensor = backbone(
                **given, **{name: self.cache}, use_cache=True
            ).last_hidden_state
            return out

        self.plain: Step = step
        self.use(self.plain)
        self._masks: dict[tuple[int, bool], torch.Tensor] = {}

    def use(
        self, step: Step, least: int = 1, form: str = "plain", falls_back: bool = False
    ) -> None:
        """Use a form of the pass, which reads at least ``least`` columns.

        ``falls_back``: where it fails, the plain pass continues, and a log line says so.
        """
        self._step, self._least, self._falls_back = step, least, falls_back
        self.form = form

    @property
    def possible(self) -> bool:
        """False for a cache with sliding windows or recurrent states."""
        return all(type(layer) is StaticLayer for layer in self.cache.layers)

    def prefill(
        self, prefix: Prefix, prompt: str, proposal: Sequence[int]
    ) -> tuple[DecodingState, torch.Tensor] | None:
        """See ``Decoder.prefill``; None: the row does not fit into the cache."""
        before, positions_N = self.decoder._embed_prefix(prefix)
        ids = encode(self.decoder.tokenizer, prompt)
        start = before.shape[1] + len(ids)
        if start + len(proposal) > self.capacity or prefix.cross_attention_BND is not None:
            return None
        self.decoder._check_length([ids], positions_N)
        device = before.device
        first = int(positions_N[-1]) + 1 if len(positions_N) else 0
        extra = {
            "images": before.shape[1],
            "first": first - before.shape[1],  # position of a text token minus its column
            "start": start,
            "prompt": prompt,
            "read": list(proposal),
            "last": len(proposal),
        }
        empty = torch.zeros((1, 0), dtype=torch.bool, device=device)
        state = DecodingState(self, empty, torch.zeros(1, device=device), prefix, extra)
        text = torch.tensor([[*ids, *proposal]], device=device)
        embeds = torch.cat([before, self.decoder.embed(text).to(before.dtype)], 1)
        columns = torch.arange(before.shape[1], embeds.shape[1], device=device)
        positions = torch.cat([positions_N.to(device), columns + extra["first"]])[None]
        hidden = self._run(state, embeds, positions, 0)
        return state, hidden[:, start - 1 :]

    def decode_step(self, state: DecodingState, ids_BL: torch.Tensor) -> torch.Tensor:
        """See ``Decoder.decode_step``."""
        extra, new = state.extra, ids_BL.shape[1]
        start = extra["start"] + len(extra["read"])
        extra["read"] += ids_BL[0].tolist()
        extra["last"] = new
        if start + max(new, self._least) > self.capacity:
            ordinary, hidden = self.decoder.ordinary_prefill(
                state.prefix, [extra["prompt"]], [extra["read"]]
            )
            vars(state).update(vars(ordinary))
            self.decoder.begin_pass(state, new)
            return hidden[:, -new:]
        self.decoder.check_positions(start + new + extra["first"])
        embeds = self.decoder.embed(ids_BL).to(state.prefix.tokens_BND.dtype)
        positions = torch.arange(start, start + new, device=ids_BL.device)[None] + extra["first"]
        return self._run(state, embeds, positions, start)

    def keep(self, state: DecodingState, count_B: torch.Tensor) -> None:
        """See ``Decoder.keep``."""
        dropped = state.extra["last"] - int(count_B)
        if dropped:
            del state.extra["read"][-dropped:]
            state.extra["last"] = int(count_B)

    def _run(
        self, state: DecodingState, embeds: torch.Tensor, positions: torch.Tensor, start: int
    ) -> torch.Tensor:
        """Hidden states of new columns from ``start`` on; padding is overwritten later."""
        new = embeds.shape[1]
        wide = next((b for b in _BUCKETS if b >= new), -(-new // 64) * 64) if self.on_gpu else new
        wide = min(max(wide, self._least), self.capacity - start)
        if wide != new:
            embeds = torch.nn.functional.pad(embeds, (0, 0, 0, wide - new))
            positions = torch.nn.functional.pad(positions, (0, wide - new))
        mask = self._mask(state.extra["images"], embeds)[:, :, start : start + wide]
        begin = torch.tensor(start, device=embeds.device)
        try:
            hidden = self._step(embeds, positions, mask, begin)
        except Exception as error:  # another number of columns may need another program
            if not self._falls_back or self._step is self.plain:
                raise
            log.warning("decoding is slower from here on: %s", first_line(error))
            self.use(self.plain)
            hidden = self._step(embeds, positions, mask, begin)
        return hidden[:, :new].clone() if self.on_gpu else hidden[:, :new]

    def _mask(self, images: int, like: torch.Tensor) -> torch.Tensor:
        """(1, 1, capacity, capacity): 0 for columns (last axis) that a column attends to, or -inf.

        Attention would convert a bool mask in every layer.
        """
        key = images, self.decoder.image_attention == "full"
        if key not in self._masks:
            self._masks.clear()
            column = torch.arange(self.capacity, device=like.device)
            mask = column[None] <= column[:, None]
            if key[1]:
                mask |= (column[None] < images) & (column[:, None] < images)
            values = torch.zeros(mask.shape, dtype=like.dtype, device=like.device)
            self._masks[key] = values.masked_fill(~mask, -torch.inf)[None, None]
        return self._masks[key]


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type."""
    return next(iter(str(error).splitlines()), type(error).__name__)
