"""Fast decoding of one row of a causal model: a key-value cache of fixed size, a compiled pass."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from transformers import StaticCache
from transformers.cache_utils import StaticLayer

from vla.models.decoders.backbone import find_backbone
from vla.models.decoders.base import DecodingState, Prefix
from vla.models.decoders.language import cache_argument
from vla.models.decoders.text import encode

log = logging.getLogger(__name__)
_LEAST = 2  # columns of a pass: torch.compile makes another program for one column
# Columns of a pass on a GPU, where every number of columns is a CUDA graph of its own.
_BUCKETS = (2, 4, 8, 16, 32)


class StaticDecoding:
    """``prefill``, ``decode_step`` and ``keep`` of ``Decoder`` for one row.

    A row is one sequence without padding, so the place of a token in the cache is its number. A
    text that does not fit continues with the ordinary cache.

    Args:
        decoder: a ``CausalTexts`` in evaluation mode with full attention in every layer.
        capacity: tokens of the cache, the image's included.
        compiled: compile the pass with ``torch.compile``; without a compiler it runs as it is.
    """

    def __init__(self, decoder: Any, capacity: int, compiled: bool) -> None:
        self.decoder, self.capacity = decoder, capacity
        self.cache = StaticCache(config=decoder.lm.config, max_cache_len=capacity)
        self.on_gpu = decoder.lm.device.type == "cuda"
        backbone = find_backbone(decoder.lm)
        name = cache_argument(backbone)

        def step(embeds: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            given = {"inputs_embeds": embeds, "position_ids": positions, "attention_mask": mask}
            out: torch.Tensor = backbone(
                **given, **{name: self.cache}, use_cache=True
            ).last_hidden_state
            return out

        self._eager = self._step = step
        if compiled:
            options = {"mode": "reduce-overhead"} if self.on_gpu else {"dynamic": True}
            self._step = torch.compile(step, **options)
        self._masks: dict[tuple[int, bool], torch.Tensor] = {}

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
        if start + max(new, _LEAST) > self.capacity:
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
        wide = min(max(wide, _LEAST), self.capacity - start)
        embeds = torch.nn.functional.pad(embeds, (0, 0, 0, wide - new))
        positions = torch.nn.functional.pad(positions, (0, wide - new))
        layers: Any = self.cache.layers
        for layer in layers:
            layer.cumulative_length.fill_(start)
        mask = self._mask(state.extra["images"], embeds.device)[:, :, start : start + wide]
        try:
            hidden = self._step(embeds, positions, mask)
        except Exception as error:
            if self._step is self._eager:
                raise
            log.warning("not compiled, so decoding is slower: %s", str(error).splitlines()[0])
            self._step = self._eager
            return self._run(state, embeds[:, :new], positions[:, :new], start)
        return hidden[:, :new].clone() if self.on_gpu else hidden[:, :new]

    def _mask(self, images: int, device: torch.device) -> torch.Tensor:
        """(1, 1, capacity, capacity) bool: which columns (last axis) a column attends to."""
        key = images, self.decoder.image_attention == "full"
        if key not in self._masks:
            self._masks.clear()
            column = torch.arange(self.capacity, device=device)
            mask = column[None] <= column[:, None]
            if key[1]:
                mask |= (column[None] < images) & (column[:, None] < images)
            self._masks[key] = mask[None, None]
        return self._masks[key]


@torch.no_grad()
def static_decoding(decoder: Any, prefix: Prefix, prompt: str, compiled: bool) -> Any:
    """A ``StaticDecoding`` that gives the ordinary hidden states; None if there is none.

    The two are compared on ``prompt`` with a few tokens. A reason is logged.

    Args:
        decoder: any ``Decoder``.
        prefix: one row.
        compiled: see ``StaticDecoding``.
    """
    family = decoder.lm.config.model_type
    if not hasattr(decoder, "ordinary_prefill") or not decoder.takes_drafts:
        log.info("%s: no static cache: it is for causal models in packed execution", family)
        return None
    before, _ = decoder._embed_prefix(prefix)
    room = getattr(decoder.lm.config, "max_position_embeddings", None) or 2**30
    capacity = min(-(-(before.shape[1] + 192) // 64) * 64, before.shape[1] + room)
    ids = encode(decoder.tokenizer, prompt)[:2] * 2
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            static = StaticDecoding(decoder, capacity, compiled)
            if not static.possible:
                log.info("%s: no static cache: sliding windows or recurrent layers", family)
                return None
            found = _states(static.prefill(prefix, prompt, ids[:2]), static, ids)
    except Exception as error:  # the code of a family may raise anything
        log.info("%s: no static cache: %s", family, str(error).splitlines()[:1])
        return None
    expected = _states(decoder.ordinary_prefill(prefix, [prompt], [ids[:2]]), decoder, ids)
    difference = float((found - expected).abs().max() / expected.abs().max().clamp(min=1.0))
    if difference > 1e-4 and before.dtype == torch.float32:
        log.info("%s: no static cache: its hidden states differ by %.1g", family, difference)
        return None
    return static


def _states(
    begun: tuple[DecodingState, torch.Tensor] | None, by: Any, ids: list[int]
) -> torch.Tensor:
    """Hidden states of two passes, of which the first drops a token."""
    assert begun is not None, "the example fits"
    state, hidden = begun
    count = torch.ones(1, dtype=torch.long, device=hidden.device)
    by.keep(state, count)
    later = by.decode_step(state, torch.tensor([ids], device=hidden.device))
    return torch.cat([hidden[:, :2], later], 1)
