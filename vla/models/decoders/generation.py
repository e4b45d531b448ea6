"""Generation of one text per row, under constraints on the next token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from vla.errors import ActionError
from vla.models.decoders.base import Decoder, Prefix
from vla.models.decoders.constraints import FreeText, TokenConstraint
from vla.models.decoders.drafts import DraftedText
from vla.models.decoders.legal import legal_set
from vla.models.decoders.sampling import TokenSampler
from vla.models.decoders.text import encode

# Tokens of all rows in one pass that cost little more than one token of each row. It is known for
# CPUs, and low for GPUs.
_TOKENS_PER_PASS = 64
_Place = tuple[int, int]  # row, and index in the row's ``allowed``


@dataclass(frozen=True)
class Generated:
    """What ``generate`` did.

    tokens: token ids of every row, as the decoder reads them.
    passes: passes of the decoder, the one that reads the prompts included.
    """

    tokens: list[list[int]]
    passes: int


@torch.no_grad()
def generate(
    decoder: Decoder,
    prefix: Prefix,
    prompts: Sequence[str],
    constraints: Sequence[TokenConstraint],
    sampler: TokenSampler | None = None,
    drafts: Sequence[Sequence[int]] = (),
) -> Generated:
    """Generate until every constraint is done; constraints collect the tokens.

    Logits are computed for allowed ids only. Without a ``sampler`` the most likely one is chosen.
    Speculative decoding (arXiv 2211.17192): the decoder reads a draft of the text in one pass, and
    the tokens up to the first wrong one are kept, so the result does not depend on the draft.
    Tokens without an alternative are part of every draft.

    Args:
        drafts: token ids that each row's text may have, for example those of the step before;
            empty: no row has one.

    Raises:
        ActionError: logits are NaN.
    """
    most = _TOKENS_PER_PASS // len(prompts) if decoder.takes_drafts else 0
    most = most if most > 1 else 0
    room = _room(decoder, prefix, prompts)
    rows = [
        DraftedText(constraint, drafts[k] if drafts else (), room[k])
        for k, constraint in enumerate(constraints)
    ]
    pad, passes = decoder.tokenizer.eos_token_id, 1
    state, hidden = decoder.prefill(prefix, prompts, _propose(rows, most))
    while True:
        _choose(decoder, hidden, rows, sampler)
        active = [row for row in rows if not row.done]
        if not active:
            return Generated([row.tokens for row in rows], passes)
        if most:
            if not decoder.keeps_rows_apart:
                common = min(row.kept for row in active)
                for row in rows:
                    row.keep(common)
            kept = torch.tensor([row.kept for row in rows], device=hidden.device)
            decoder.keep(state, kept)
        given = _propose(rows, most)
        longest = max(map(len, given))
        ids = [new + [pad] * (longest - len(new)) for new in given]
        hidden = decoder.decode_step(state, torch.tensor(ids, device=hidden.device))
        passes += 1


def _propose(rows: Sequence[DraftedText], most: int) -> list[list[int]]:
    """The tokens that each row reads next; a pass has as many columns for every row."""
    left = min((row.left for row in rows if not row.done), default=0)
    return [row.propose(min(most, left)) for row in rows]


def _room(decoder: Decoder, prefix: Prefix, prompts: Sequence[str]) -> list[int]:
    """Tokens that fit into the decoder's table of positions after each prompt."""
    rows = getattr(decoder, "max_text_tokens", None)
    if rows is None:
        return [2**30] * len(prompts)
    if getattr(decoder, "image_positions", "") == "each":
        rows -= prefix.tokens_BND.shape[1]
    return [rows - len(encode(decoder.tokenizer, prompt)) for prompt in prompts]


def _choose(
    decoder: Decoder,
    hidden_BLD: torch.Tensor,
    rows: Sequence[DraftedText],
    sampler: TokenSampler | None,
) -> None:
    """Choose the next tokens of every row, up to the first that its proposal does not have."""
    groups: dict[int, tuple[torch.Tensor | None, list[_Place]]] = {}
    best: dict[_Place, int] = {}  # the most likely token
    for b, row in enumerate(rows):
        for k, ids in enumerate(row.allowed):
            only = None if ids is None else legal_set(ids).only
            if only is None:
                groups.setdefault(id(ids), (ids, []))[1].append((b, k))
            else:
                best[b, k] = only
    logits: dict[_Place, tuple[torch.Tensor, list[int] | None]] = {}
    for ids, places in groups.values():
        found = decoder.logits(_states(hidden_BLD, rows, places), ids)
        values, index = (part.tolist() for part in found.max(-1))
        if any(value != value for value in values):
            raise ActionError("the decoder's logits are not numbers (NaN); no token is chosen")
        tokens = None if ids is None else legal_set(ids).tokens
        chosen = index if tokens is None else [tokens[i] for i in index]
        best |= dict(zip(places, chosen, strict=True))
        if sampler is not None:
            logits |= {place: (found[n : n + 1], tokens) for n, place in enumerate(places)}

    def choose(b: int, k: int) -> int:
        if sampler is None or (b, k) not in logits:
            return best[b, k]
        found, tokens = logits[b, k]
        index = int(sampler(found, [b]))
        return index if tokens is None else tokens[index]

    for b, row in enumerate(rows):
        row.accept(partial(choose, b), [best[b, k] for k in range(len(row.allowed))])


def _states(
    hidden_BLD: torch.Tensor, rows: Sequence[DraftedText], places: Sequence[_Place]
) -> torch.Tensor:
    """The hidden states (N, D) at these places."""
    (b, first), (last_row, last) = places[0], places[-1]
    if b == last_row and last - first + 1 == len(places):
        return hidden_BLD[b, rows[b].first + first : rows[b].first + last + 1]
    at = torch.tensor([(b, rows[b].first + k) for b, k in places], device=hidden_BLD.device)
    return hidden_BLD[at[:, 0], at[:, 1]]


def generate_text(
    decoder: Decoder, prefix: Prefix, prompts: Sequence[str], limit: int
) -> list[str]:
    """The likeliest text after every prompt, up to the end-of-text token or ``limit`` tokens."""
    tokenizer = decoder.tokenizer
    texts = [FreeText(tokenizer.eos_token_id, limit) for _ in prompts]
    generate(decoder, prefix, prompts, texts)
    return [tokenizer.decode(t.tokens, skip_special_tokens=True).strip() for t in texts]
