"""What policies and heads ask of a decoder, whatever language model is inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch


@dataclass
class Prefix:
    """What a decoder knows of B images before it reads any text.

    tokens_BND: image tokens in the decoder's width, read before the text (N may be 0). memory_BMD: image tokens that the text looks at by
    cross-attention, or None. images_BVCHW: raw uint8 views, for decoders that have their own eyes (whole vision-language models).
    """

    tokens_BND: torch.Tensor
    memory_BMD: torch.Tensor | None = None
    images_BVCHW: torch.Tensor | None = None

    @property
    def rows(self) -> int:
        """B."""
        return len(self.tokens_BND)

    def take(self, rows: Sequence[int]) -> Prefix:
        """Of these images alone."""
        some = [None if t is None else t[list(rows)] for t in (self.memory_BMD, self.images_BVCHW)]
        return Prefix(self.tokens_BND[list(rows)], *some)


@dataclass
class Decoding:
    """Text being written behind B prompts: the key-value cache and whatever else the decoder keeps between two tokens."""

    cache: Any
    keys_BL: torch.Tensor  # bool: which cached columns are text or image, not padding
    next_B: torch.Tensor  # position of the next token
    prefix: Prefix
    extra: dict[str, Any] = field(default_factory=dict)


class Decoder(Protocol):
    """The contract. Hidden states that predict: the state "before" an item is the one its logits come from."""

    tokenizer: Any
    width: int
    vocabulary: int  # tokens that ``logits`` has a place for

    def read(
        self, prefix: Prefix, owner_K: torch.Tensor, prompts: Sequence[str], tails: Sequence[Sequence[int]], sees_K: torch.Tensor | None = None,
        queries_KQD: torch.Tensor | None = None, parallel: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        """K texts (prompt, then tail), each behind the image of row ``owner_K[k]``, all independent of each other.

        tails: token ids. sees_K: False where a text must not look at its image. queries_KQD: learned queries in the decoder's width, behind the ids; parallel:
        they see each other both ways. Returns (M, D): for every text in order the n + 1 states before, between and after its n tail items, ids and queries.
        """
        ...

    def start(self, prefix: Prefix, prompts: Sequence[str]) -> tuple[Decoding, torch.Tensor]:
        """One prompt a row: the state to go on from, and the hidden states (B, D) before the first written token."""
        ...

    def step(self, state: Decoding, ids_B: torch.Tensor) -> torch.Tensor:
        """One more token a row; hidden states (B, D) before the next."""
        ...

    def logits(self, hidden: torch.Tensor, ids: torch.Tensor | None = None) -> torch.Tensor:
        """Hidden states (..., D) to logits over the vocabulary, or over the rows ``ids`` only."""
        ...

    def fit_vocabulary(self) -> None:
        """Make the embedding as long as the tokenizer."""
        ...


def tail_ids(tails: Sequence[Sequence[int]], queries_KQD: torch.Tensor | None, pad: int) -> list[list[int]]:
    """Token ids of tail items; queries are padding until their embeddings are put in place."""
    return [[*t, *[pad] * (0 if queries_KQD is None else queries_KQD.shape[1])] for t in tails]


def states_of(counts: Sequence[int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """For texts with ``counts`` tail items: (text_M, item_M), M = sum(counts + 1), in the order ``read`` returns."""
    sizes = torch.tensor([c + 1 for c in counts])
    text = torch.repeat_interleave(torch.arange(len(counts)), sizes)
    first = torch.cumsum(sizes, 0) - sizes
    return text.to(device), (torch.arange(len(text)) - first[text]).to(device)


def behind_ids(tails: Sequence[Sequence[int]], text_M: torch.Tensor, item_M: torch.Tensor) -> torch.Tensor:
    """(M,) bool: states that ``read`` returns at a query; the state at an item is the one behind it, so the one before the first query is not among them."""
    counts = torch.tensor([len(t) for t in tails], device=item_M.device)
    return item_M > counts[text_M]
