"""Tokenisation behind a prompt, and the next-token loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch.nn import functional

from vla.models.decoders.base import Decoder, Prefix, hidden_state_index
from vla.models.prompts import ANSWER_WORD

_LONG = 2000  # characters of texts that are not kept in memory


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids without special tokens."""
    if len(text) > _LONG:
        return tokenizer.encode(text, add_special_tokens=False)
    return list(_encode(tokenizer, len(tokenizer), text))


@lru_cache(maxsize=65536)
def _encode(tokenizer: Any, tokens: int, text: str) -> tuple[int, ...]:
    """The ids of ``encode``; ``tokens``: length of the tokenizer, which may grow."""
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def text_too_long(tokens: int, most: int) -> str:
    """The message about a prompt with its answer that has no place in a table of positions."""
    return (
        f"a text has {tokens} tokens, but the decoder's table of positions has room for {most}: "
        "give a shorter instruction; for training, pack with source.mapping.max_answer_words and "
        "source.mapping.history=false, or take a decoder with more positions"
    )


@lru_cache(maxsize=65536)
def continuation(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Token ids of ``text`` after a prompt.

    Some tokenizers encode the first word of a string differently, so the end of the prompt is
    encoded with it.
    """
    before, joined = encode(tokenizer, ANSWER_WORD), encode(tokenizer, ANSWER_WORD + text)
    if joined[: len(before)] == before:
        return tuple(joined[len(before) :])
    return tuple(encode(tokenizer, text))


@dataclass
class TextLoss:
    """Loss of M target tokens, in the order of the texts.

    loss_M: cross-entropy.
    right_M: bool, True if the most likely token is the target.
    text_M: index of the text.
    hidden_MD: the hidden states that predict the tokens.
    """

    loss_M: torch.Tensor
    right_M: torch.Tensor
    text_M: torch.Tensor
    hidden_MD: torch.Tensor


def text_loss(
    decoder: Decoder,
    prefix: Prefix,
    image_index_K: torch.Tensor,
    prompts: Sequence[str],
    target_ids: Sequence[Sequence[int]],
    attend_image_K: torch.Tensor | None = None,
    allowed_V: torch.Tensor | None = None,
) -> TextLoss:
    """Cross-entropy of every target token given image, prompt and earlier target tokens.

    ``allowed_V``, bool, restricts the softmax to some tokens of the vocabulary.
    """
    hidden = decoder.encode_texts(prefix, image_index_K, prompts, target_ids, attend_image_K)
    return token_loss(decoder, hidden, target_ids, allowed_V)


def token_loss(
    decoder: Decoder,
    hidden_MD: torch.Tensor,
    target_ids: Sequence[Sequence[int]],
    allowed_V: torch.Tensor | None = None,
) -> TextLoss:
    """The loss of ``text_loss`` from hidden states of ``Decoder.encode_texts``.

    A target outside ``allowed_V`` has infinite loss.
    """
    counts = torch.tensor([len(t) for t in target_ids])
    text_M, item_M = hidden_state_index(counts.tolist(), hidden_MD.device)
    # The state after the last token has no target.
    has_target = item_M < counts.to(hidden_MD.device)[text_M]
    target_M = torch.tensor([t for ids in target_ids for t in ids], device=hidden_MD.device)
    logits = decoder.logits(hidden_MD[has_target]).float()
    if allowed_V is not None:
        logits = logits.masked_fill(~allowed_V, float("-inf"))
    loss_M = functional.cross_entropy(logits, target_M, reduction="none")
    right_M = logits.argmax(-1) == target_M
    return TextLoss(loss_M, right_M, text_M[has_target], hidden_MD[has_target])
