"""The fastest way to decode one row that gives the ordinary hidden states."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from threading import Timer
from typing import Any

import torch

from vla.models.decoders.base import DecodingState, Prefix
from vla.models.decoders.fast_steps import CompiledLayers, Step, TracedStep
from vla.models.decoders.static_cache import StaticDecoding, first_line
from vla.models.decoders.text import encode
from vla.utils.device import synchronize

log = logging.getLogger(__name__)
_FEW_LAYERS = 8  # a model with at most so many is compiled as one program, which is faster
_PATIENCE = 30.0  # seconds of compiling after which a log line says so
_REPEATS = 5


@torch.no_grad()
def static_decoding(
    decoder: Any, prefix: Prefix, prompt: str, compiled: bool
) -> StaticDecoding | None:
    """A ``StaticDecoding`` that gives the ordinary hidden states; None if there is none.

    Its pass is a graph without Python (on a CPU), or the plain one. ``compiled`` compares the time
    of these and of a compiled pass. Forms that give other hidden states for ``prompt`` with a few
    tokens are not used. Reasons are logged.

    The model must not be trained further.

    Args:
        decoder: any ``Decoder``.
        prefix: one row.
        compiled: try ``torch.compile``.
    """
    family = decoder.lm.config.model_type
    if not hasattr(decoder, "ordinary_prefill") or not decoder.takes_drafts:
        log.info("%s: no static cache: it is for causal models in packed execution", family)
        return None
    before, _ = decoder._embed_prefix(prefix)
    room = getattr(decoder.lm.config, "max_position_embeddings", None) or 2**30
    capacity = min(-(-(before.shape[1] + 192) // 64) * 64, before.shape[1] + room)
    ids = encode(decoder.tokenizer, prompt)[:2] * 2
    expected = _states(decoder.ordinary_prefill(prefix, [prompt], [ids[:2]]), decoder, ids)
    static = StaticDecoding(decoder, capacity)
    if not static.possible:
        log.info("%s: no static cache: sliding windows or recurrent layers", family)
        return None
    decoder.lm.requires_grad_(False)  # graphs contain the weights as constants
    exact, fastest = before.dtype == torch.float32, float("inf")
    best: tuple[Step, int, str] | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, step, least in _forms(static, compiled):
            static.use(step, least)
            try:
                found = _states(static.prefill(prefix, prompt, ids[:2]), static, ids)
            except Exception as error:  # the code of a family may raise anything
                reason = first_line(error)
            else:
                difference = (found - expected).abs().max() / expected.abs().max().clamp(min=1.0)
                reason = f"its hidden states differ by {difference:.1g}"
                if difference < 1e-4 or not exact:
                    taken = _time(static, prefix, prompt, ids) if compiled else 0.0
                    if taken < fastest or not compiled:
                        best, fastest = (step, least, name), taken
                    continue
            if step is static.plain:
                log.info("%s: no static cache: %s", family, reason)
                return None
            log.warning("not %s, so decoding is slower: %s", name, reason)
    assert best is not None, "the plain pass works"
    static.use(*best, falls_back=True)
    log.info("%s: decoding pass: %s", family, static.form)
    return static


def _forms(static: StaticDecoding, compiled: bool) -> Iterator[tuple[str, Step, int]]:
    """(name, pass, smallest number of columns) of the forms to try."""
    yield "plain", static.plain, 1
    if not static.on_gpu:
        yield "traced", TracedStep(static.plain), 1
    if not compiled:
        return
    # It warns where no GPU is found.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    step: Any
    layers = static.decoder.layers
    if static.on_gpu:
        step = torch.compile(static.plain, mode="reduce-overhead")
    elif len(layers) > _FEW_LAYERS:
        step = CompiledLayers(static.plain, layers, static.cache)
    else:
        step = torch.compile(static.plain, dynamic=True)
    message = f"compiling the decoding pass takes more than {_PATIENCE:.0f} s: please wait"
    timer = Timer(_PATIENCE, log.warning, [message])
    timer.daemon = True
    timer.start()
    try:
        yield "compiled", step, 2  # torch.compile makes another program for one column
    finally:
        timer.cancel()


def _states(
    begun: tuple[DecodingState, torch.Tensor] | None, by: Any, ids: list[int]
) -> torch.Tensor:
    """Hidden states of three passes: one that drops a token, one of several tokens, one of one."""
    assert begun is not None, "the example fits"
    state, hidden = begun
    count = torch.ones(1, dtype=torch.long, device=hidden.device)
    by.keep(state, count)
    found = [hidden[:, :2]]
    for some in (ids, ids[:1]):
        found.append(by.decode_step(state, torch.tensor([some], device=hidden.device)))
    return torch.cat(found, 1)


def _time(static: StaticDecoding, prefix: Prefix, prompt: str, ids: list[int]) -> float:
    """Shortest time of a pass of several columns and of one column together, s."""
    begun = static.prefill(prefix, prompt, ids)
    assert begun is not None, "the example fits"
    state, hidden = begun
    nothing, total = torch.zeros(1, dtype=torch.long, device=hidden.device), 0.0
    for some in (ids, ids[:1]):
        given, times = torch.tensor([some], device=hidden.device), []
        for _ in range(_REPEATS):
            begin = time.perf_counter()
            static.decode_step(state, given)
            synchronize(hidden.device)
            times.append(time.perf_counter() - begin)
            static.keep(state, nothing)
        total += min(times)
    return total
