"""Next-token loss, and greedy writing under a grammar: what every token of this project goes through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch.nn import functional

from vla.decoders.base import Decoder, Prefix, states_of
from vla.schema import ACTION_QUESTION

PROMPT = "Q: {question} A:"
_ANCHOR = "A:"  # what every written text stands behind


def robot_prompt(instruction: str) -> str:
    """The paper's prompt for an instruction."""
    return PROMPT.format(question=ACTION_QUESTION.format(instruction=instruction))


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids without special tokens."""
    return tokenizer.encode(text, add_special_tokens=False)


@lru_cache(maxsize=65536)
def continuation(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Token ids of ``text`` where it goes on behind a prompt (some tokenizers write the first word of a string differently)."""
    anchor, whole = encode(tokenizer, _ANCHOR), encode(tokenizer, _ANCHOR + text)
    if whole[: len(anchor)] == anchor:
        return tuple(whole[len(anchor) :])
    return tuple(encode(tokenizer, text))


@dataclass
class TextLoss:
    """Per target token, M of them in order of text: loss_M, whether the argmax is right_M, text_M (which text), hidden_MD."""

    loss_M: torch.Tensor
    right_M: torch.Tensor
    text_M: torch.Tensor
    hidden_MD: torch.Tensor


def text_loss(
    decoder: Decoder, prefix: Prefix, owner_K: torch.Tensor, prompts: Sequence[str], targets: Sequence[Sequence[int]],
    sees_K: torch.Tensor | None = None, among_V: torch.Tensor | None = None,
) -> TextLoss:  # fmt: skip
    """Cross-entropy of every target token given its image, its prompt and the targets before it, among the whole vocabulary or the tokens ``among_V``, (V,) bool."""
    return token_loss(decoder, decoder.read(prefix, owner_K, prompts, targets, sees_K), targets, among_V)


def token_loss(
    decoder: Decoder, hidden: torch.Tensor, targets: Sequence[Sequence[int]], among_V: torch.Tensor | None = None
) -> TextLoss:
    """The same of states that were read already, (M, D) as ``Decoder.read`` returns them; a target outside ``among_V`` has infinite loss."""
    counts = torch.tensor([len(t) for t in targets])
    text_M, item_M = states_of(counts.tolist(), hidden.device)
    wanted = item_M < counts.to(hidden.device)[text_M]  # the state after the last token predicts nothing that is known
    target_M = torch.tensor([t for tokens in targets for t in tokens], device=hidden.device)
    logits = decoder.logits(hidden[wanted]).float()
    if among_V is not None:
        logits = logits.masked_fill(~among_V, float("-inf"))
    loss_M = functional.cross_entropy(logits, target_M, reduction="none")
    return TextLoss(loss_M, logits.argmax(-1) == target_M, text_M[wanted], hidden[wanted])


class Writer(Protocol):
    """The grammar of one row: which token may come next, and when the text is finished."""

    @property
    def done(self) -> bool:
        """Nothing more is to be written."""
        ...

    def allowed(self) -> torch.Tensor | None:
        """Ids that may come next; None: any. The same tensor object for the same set, so that rows can be grouped."""
        ...

    def push(self, token: int) -> int:
        """Take the chosen token; the one that is written (another where both mean the same here)."""
        ...


class FreeText:
    """Anything up to ``limit`` tokens or the token ``stop`` (which is not kept), or another that ``ends`` it, for which ``stop`` is written."""

    def __init__(self, stop: int, limit: int, ends: int | None = None) -> None:
        self.stop, self.limit, self.ends, self.done = stop, limit, ends, limit < 1
        self.tokens: list[int] = []

    def allowed(self) -> None:
        """The whole vocabulary."""
        return None

    def push(self, token: int) -> int:
        """Keep the token, or stop at it."""
        written = self.stop if token == self.ends else token
        if written != self.stop:
            self.tokens.append(written)
        self.done = written == self.stop or len(self.tokens) >= self.limit
        return written


@torch.no_grad()
def write(decoder: Decoder, prefix: Prefix, prompts: Sequence[str], writers: Sequence[Writer]) -> None:
    """Greedy decoding of one text a row until every writer is done; logits are computed for allowed ids only."""
    state, hidden = decoder.start(prefix, prompts)
    pad = decoder.tokenizer.eos_token_id
    while True:
        chosen = [pad] * len(writers)
        groups: dict[int, tuple[torch.Tensor | None, list[int]]] = {}
        for row, writer in enumerate(writers):
            if not writer.done:
                ids = writer.allowed()
                groups.setdefault(id(ids), (ids, []))[1].append(row)
        for ids, rows in groups.values():
            some = hidden if len(rows) == len(hidden) else hidden[rows]
            legal = None if ids is None else ids.to(hidden.device)
            best = decoder.logits(some, legal).argmax(-1)
            for row, token in zip(rows, (best if legal is None else legal[best]).tolist(), strict=True):
                chosen[row] = writers[row].push(token)
        if all(w.done for w in writers):
            return
        hidden = decoder.step(state, torch.tensor(chosen, device=hidden.device))
