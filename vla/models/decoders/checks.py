"""The checks of the start-up proof: one list for decoders of every kind."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vla.models.decoders.base import Prefix
from vla.models.decoders.tiny import WINDOW
from vla.models.lora import LoraConfig

TOLERANCE = 1e-4  # of the largest absolute value, or of 1 if that is larger
# The first one with an image and three items is not longer than the window of causal models.
PROMPTS = ("Q: what is this? A:", "Q: red? A:", "Q: what should the robot do with this? A:")
LONG = " ".join(PROMPTS[2:] * 3)  # longer than two windows
GRADIENTS = "gradients reach every weight"
DRAFTS = "proposed tokens can be dropped"


class Failed(Exception):
    """A check that failed; the text says by how much."""


@dataclass(frozen=True)
class Subject:
    """A tiny decoder and what its kind states about it.

    decoder: in evaluation mode, without dropout.
    images: prefix of two rows.
    state: the same with the robot's state, where the kind has one in its prefix.
    own: (one row, prompt, n token ids) to two times logits (n + 1, V): those of the decoder, and
        those of the model's own forward pass.
    compared: rows for ``own``; the first one also gives gradients.
    extra: further checks by name, before all others.
    in_order: parallel queries may attend only to earlier ones, as in recurrent layers.
    """

    decoder: Any
    images: Prefix
    state: Prefix
    own: Callable[[Prefix, str, list[int]], tuple[torch.Tensor, torch.Tensor]]
    compared: tuple[Prefix, ...]
    extra: tuple[tuple[str, Callable[[], str]], ...] = ()
    in_order: bool = False


def same(a: torch.Tensor, b: torch.Tensor) -> str:
    """The relative difference of equal tensors; ``Failed`` if they are not equal."""
    if a.shape != b.shape:
        raise Failed(f"shape {tuple(a.shape)}, expected {tuple(b.shape)}")
    difference = float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=1.0))
    if not difference <= TOLERANCE:
        raise Failed(f"relative difference {difference:.1g}")
    return f"{difference:.0e}"


def _differ(a: torch.Tensor, b: torch.Tensor, what: str) -> None:
    if torch.allclose(a, b, atol=1e-6):
        raise Failed(what)


def token_ids(decoder: Any, count: int, shift: int = 0) -> list[int]:
    """Token ids of text."""
    words = decoder.tokenizer.encode("the red apple is in the what", add_special_tokens=False)
    return [words[(k + shift) % len(words)] for k in range(count)]


def encode_one(decoder: Any, row: Prefix, prompt: str, ids: list[int]) -> torch.Tensor:
    """Hidden states of one text."""
    return decoder.encode_texts(row, torch.zeros(1, dtype=torch.long), [prompt], [ids])


@torch.no_grad()
def _own(subject: Subject, prompt: str = PROMPTS[0], items: int = 3) -> str:
    """Logits, and those of the model's own forward pass."""
    ids = token_ids(subject.decoder, items)
    return " ".join(same(*subject.own(row, prompt, ids)) for row in subject.compared)


@torch.no_grad()
def _generated(subject: Subject, prompts: Sequence[str], items: int) -> str:
    """States of generation with a cache, and those of each whole text alone."""
    decoder, rows = subject.decoder, subject.state.select([k % 2 for k in range(len(prompts))])
    ids = [token_ids(decoder, items, k) for k in range(len(prompts))]
    state, hidden = decoder.prefill(rows, prompts)
    steps = [hidden]
    for column in zip(*ids, strict=True):
        steps.append(decoder.decode_step(state, torch.tensor(column)[:, None]))
    alone = [encode_one(decoder, rows.select([k]), p, ids[k]) for k, p in enumerate(prompts)]
    return same(torch.cat(steps, 1), torch.stack(alone))


@torch.no_grad()
def _drafted(subject: Subject) -> str:
    """States of two passes over three tokens each, of which wrong ones are dropped."""
    decoder = subject.decoder
    if not decoder.takes_drafts:
        return "no drafts"
    prompts, wrong = PROMPTS[1:], token_ids(decoder, 3, 4)
    ids = [token_ids(decoder, 6, k) for k in (0, 1)]
    first = [[*some[: 2 - k], *wrong[: 1 + k]] for k, some in enumerate(ids)]
    kept = [2, 1] if decoder.keeps_rows_apart else [1, 1]
    state, hidden = decoder.prefill(subject.state, prompts, first)
    decoder.keep(state, torch.tensor(kept))
    second = torch.tensor([ids[k][n : n + 2] + wrong[:1] for k, n in enumerate(kept)])
    later = decoder.decode_step(state, second)
    decoder.keep(state, torch.tensor([2, 2]))
    third = torch.tensor([ids[k][n + 2 : n + 4] for k, n in enumerate(kept)])
    last = decoder.decode_step(state, third)
    found = [torch.cat([hidden[k, : n + 1], later[k, :2], last[k]]) for k, n in enumerate(kept)]
    rows = [subject.state.select([k]) for k in (0, 1)]
    alone = [encode_one(decoder, rows[k], prompts[k], ids[k][: n + 4]) for k, n in enumerate(kept)]
    return same(torch.cat(found), torch.cat(alone))


@torch.no_grad()
def _packed(subject: Subject) -> str:
    """Three texts about two images, and each text alone."""
    decoder, rows = subject.decoder, [0, 1, 0]
    ids = [token_ids(decoder, n, n) for n in (3, 9, 5)]
    together = decoder.encode_texts(subject.state, torch.tensor(rows), PROMPTS, ids)
    alone = [
        encode_one(decoder, subject.state.select([row]), PROMPTS[k], ids[k])
        for k, row in enumerate(rows)
    ]
    return same(together, torch.cat(alone))


def _beyond_window(subject: Subject) -> str:
    """A text longer than two windows, also with a cache."""
    detail = _own(subject, LONG, 2 * WINDOW)
    return f"{detail} {_generated(subject, (LONG, PROMPTS[1]), 4)}"


@torch.no_grad()
def _image_matters(subject: Subject) -> str:
    ids = token_ids(subject.decoder, 2)
    rows = [subject.images.select([k]) for k in (0, 1)]
    states = [encode_one(subject.decoder, row, PROMPTS[0], ids) for row in rows]
    _differ(states[0], states[1], "two images give equal hidden states")
    return "two images differ"


@torch.no_grad()
def _queries(subject: Subject) -> str:
    """Only parallel queries attend to later ones, and the prompt attends to no query."""
    decoder, row = subject.decoder, subject.images.select([0])
    queries = torch.randn(1, 4, decoder.width) * 0.1
    other = queries.clone()
    other[:, -1] = -other[:, -1]
    index, ids = torch.zeros(1, dtype=torch.long), [token_ids(decoder, 2)]
    for parallel in (False, True):
        a, b = (
            decoder.encode_texts(row, index, PROMPTS[:1], ids, None, q, parallel)
            for q in (queries, other)
        )
        same(a[:3], b[:3])
        _differ(a[-1], b[-1], "a query has no influence")
        if not parallel:
            same(a[3:-1], b[3:-1])
        elif not subject.in_order:
            _differ(a[3:-1], b[3:-1], "queries do not attend in both directions")
    return "in order" if subject.in_order else "as asked"


def _loss(decoder: Any, prefix: Prefix) -> torch.Tensor:
    """A function of all logits of three texts with queries."""
    ids = [token_ids(decoder, n) for n in (2, 4, 2)]
    queries = torch.full((3, 2, decoder.width), 0.1)
    images = torch.tensor([0, 1, 1])
    hidden = decoder.encode_texts(prefix, images, PROMPTS, ids, None, queries, True)
    return decoder.logits(hidden).float().square().mean()


def _training(subject: Subject) -> str:
    """Logits in training, without dropout, and those in evaluation."""
    decoder = subject.decoder
    with torch.no_grad():
        evaluated = _loss(decoder, subject.state)
        decoder.train()
        try:
            return same(_loss(decoder, subject.state), evaluated)
        finally:
            decoder.eval()


def _gradients(subject: Subject) -> str:
    """Names of weights without influence; every weight with influence gets a gradient."""
    decoder, lm = subject.decoder, subject.decoder.lm
    logits = subject.own(subject.compared[0], PROMPTS[0], token_ids(decoder, 60))
    ours, own = (_reached(lm, found.float().square().mean()) for found in logits)
    missing = sorted(own - ours)
    if missing:
        raise Failed(f"{missing[0]} and {len(missing) - 1} others get none")
    # Which experts get a gradient depends on the text.
    unused = [n for n, _ in lm.named_parameters() if n not in ours and "expert" not in n]
    return " ".join(dict.fromkeys(from_the_end(lm, n) for n in unused))


def _reached(lm: nn.Module, loss: torch.Tensor) -> set[str]:
    """Names of the weights that have a gradient of ``loss``."""
    lm.zero_grad(set_to_none=True)
    loss.backward()
    found = {name for name, p in lm.named_parameters() if p.grad is not None}
    lm.zero_grad(set_to_none=True)
    return found


def from_the_end(lm: nn.Module, name: str) -> str:
    """A parameter's name with layers counted from the last one, which is -1."""
    parts = name.split(".")
    for at, part in enumerate(parts):
        if part.isdigit():
            count = len(list(lm.get_submodule(".".join(name.split(".")[:at])).children()))
            parts[at] = str(int(part) - count) if count else part
    return ".".join(parts)


def _adapters(subject: Subject) -> str:
    """Adapters and the embeddings of action tokens get gradients."""
    adapted = copy.deepcopy(subject.decoder)
    adapted.lora = LoraConfig(rank=2)
    adapted.apply_finetuning([5, 6])
    # Some adapters learn nothing: routers and indexers that only choose, or read a weight directly.
    found = [n for n in _reached(adapted, _loss(adapted, subject.state)) if "lora_B" in n]
    _loss(adapted, subject.state).backward()
    if not found or adapted.trainable_embeddings.output_embeddings.grad is None:
        raise Failed("no gradient for adapters or embeddings")
    return f"{len(found)} adapted weights"


CHECKS: dict[str, Callable[[Subject], str]] = {
    "logits equal the model's own": _own,
    "cached equals uncached": lambda subject: _generated(subject, PROMPTS[:1], 10),
    "packed texts equal each alone": _packed,
    DRAFTS: _drafted,
    "prompts of unlike length equal each alone": lambda subject: _generated(subject, PROMPTS, 4),
    "beyond the sliding window": _beyond_window,
    "the image matters": _image_matters,
    "queries in one or both directions": _queries,
    "training equals evaluation": _training,
    GRADIENTS: _gradients,
    "LoRA finds layers": _adapters,
}
