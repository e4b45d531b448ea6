"""The interface between policies, action heads and language decoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from vla.errors import ActionError

CROSS_ATTENTION = "cross_attention_input"  # keyword argument of decoder blocks


@dataclass
class CrossAttentionInput:
    """Image tokens to which the text attends inside the decoder.

    tokens_BND: keys and values.
    attend_image_BL: bool, True for positions of the sequence that attend to the image.
    """

    tokens_BND: torch.Tensor
    attend_image_BL: torch.Tensor

    @staticmethod
    def keywords(
        tokens_BND: torch.Tensor | None, attend_image_BL: torch.Tensor
    ) -> dict[str, CrossAttentionInput]:
        """Keyword arguments for the blocks; empty without image tokens."""
        if tokens_BND is None:
            return {}
        return {CROSS_ATTENTION: CrossAttentionInput(tokens_BND, attend_image_BL)}


@dataclass
class Prefix:
    """The images of B rows, in the form that the decoder needs.

    tokens_BND: image tokens in the decoder's width that stand before the text; N may be 0.
    cross_attention_BND: image tokens for cross-attention, or None.
    images_BVCHW: uint8 images for vision-language models with their own encoder, or None.
    """

    tokens_BND: torch.Tensor
    cross_attention_BND: torch.Tensor | None = None
    images_BVCHW: torch.Tensor | None = None

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self.tokens_BND)

    def checked(self) -> Prefix:
        """This prefix; ActionError if a token is not finite: the text would be arbitrary."""
        for tokens in (self.tokens_BND, self.cross_attention_BND):
            if tokens is not None and not tokens.isfinite().all():
                raise ActionError(
                    "the encoded images or state are not finite; check the observation "
                    "(sizes and units) and the weights"
                )
        return self

    def select(self, rows: Sequence[int]) -> Prefix:
        """The prefix of these rows only."""
        index = list(rows)
        optional = (self.cross_attention_BND, self.images_BVCHW)
        return Prefix(self.tokens_BND[index], *(None if t is None else t[index] for t in optional))


@dataclass
class DecodingState:
    """State between two decoding steps.

    cache: key-value cache.
    key_mask_BL: bool, True for cached positions that are neither padding nor dropped.
    next_position_B: position of the next token.
    extra: further state of one decoder class.
    """

    cache: Any
    key_mask_BL: torch.Tensor
    next_position_B: torch.Tensor
    prefix: Prefix
    extra: dict[str, Any] = field(default_factory=dict)


class Decoder(Protocol):
    """A language decoder.

    Hidden states are those that predict: the state *before* an item gives the item's logits.
    """

    tokenizer: Any
    width: int
    vocabulary: int  # number of logits
    takes_drafts: bool  # one pass may read several tokens of a text, and ``keep`` may drop the last
    keeps_rows_apart: bool  # ``keep`` may drop another number of tokens in each row

    def encode_texts(
        self,
        prefix: Prefix,
        image_index_K: torch.Tensor,
        prompts: Sequence[str],
        target_ids: Sequence[Sequence[int]],
        attend_image_K: torch.Tensor | None = None,
        queries_KQD: torch.Tensor | None = None,
        parallel: bool = False,
    ) -> torch.Tensor:
        """Hidden states (M, D) of K independent texts.

        Text k is its prompt, then its target items: ``target_ids[k]``, then Q queries. It follows
        the image of row ``image_index_K[k]``. For every text in order the result has n + 1 states:
        before, between and after its n target items.

        Args:
            attend_image_K: False for texts that must not attend to their image.
            queries_KQD: learned embeddings in the decoder's width.
            parallel: queries attend to each other in both directions.
        """
        ...

    def prefill(
        self, prefix: Prefix, prompts: Sequence[str], proposals: Sequence[Sequence[int]] = ()
    ) -> tuple[DecodingState, torch.Tensor]:
        """Read one prompt per row, and proposed token ids after it.

        Returns the state and hidden states (B, 1 + L, D) before the first token and after each of
        the L tokens of the longest proposal.
        """
        ...

    def decode_step(self, state: DecodingState, ids_BL: torch.Tensor) -> torch.Tensor:
        """Append L tokens to every row; hidden states (B, L, D) after each of them."""
        ...

    def keep(self, state: DecodingState, count_B: torch.Tensor) -> None:
        """Drop all but the first ``count_B`` tokens of the last pass; prompts are always kept."""
        ...

    def logits(self, hidden: torch.Tensor, ids: torch.Tensor | None = None) -> torch.Tensor:
        """Logits of hidden states (..., D): (..., vocabulary), or (..., len(ids)) of ``ids``."""
        ...

    def fit_vocabulary(self) -> None:
        """Grow the embedding to the tokenizer's length."""
        ...


def pad_targets(
    target_ids: Sequence[Sequence[int]], queries_KQD: torch.Tensor | None, pad: int
) -> list[list[int]]:
    """Token ids of all target items; ``pad`` stands for queries, whose embeddings are set later."""
    queries = 0 if queries_KQD is None else queries_KQD.shape[1]
    return [[*ids, *[pad] * queries] for ids in target_ids]


def hidden_state_index(
    counts: Sequence[int], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """(text_M, item_M) of the hidden states that ``encode_texts`` returns, M = sum(counts + 1).

    ``counts`` are the numbers of target items. State m belongs to text ``text_M[m]``; it comes
    after ``item_M[m]`` items of that text.
    """
    sizes = torch.tensor([c + 1 for c in counts])
    text = torch.repeat_interleave(torch.arange(len(counts)), sizes)
    first = torch.cumsum(sizes, 0) - sizes
    return text.to(device), (torch.arange(len(text)) - first[text]).to(device)


def is_query_state(
    target_ids: Sequence[Sequence[int]], text_M: torch.Tensor, item_M: torch.Tensor
) -> torch.Tensor:
    """(M,) bool: True for hidden states at a query.

    The state at an item comes after it, so the state before the first query is not included.
    """
    counts = torch.tensor([len(t) for t in target_ids], device=item_M.device)
    return item_M > counts[text_M]
