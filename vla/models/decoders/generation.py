"""Greedy generation of one text per row, under constraints on the next token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from vla.models.decoders.base import Decoder, Prefix


class TokenConstraint(Protocol):
    """Constraint of one row: which token may come next, and when the text is complete."""

    @property
    def done(self) -> bool:
        """True if the text is complete."""
        ...

    def allowed(self) -> torch.Tensor | None:
        """Ids that may come next, or None for any.

        Equal sets must be the same tensor object, so that rows can be grouped.
        """
        ...

    def push(self, token: int) -> int:
        """Append the chosen token; the token that the decoder reads (it may be another one)."""
        ...


class FreeText:
    """Any tokens, up to a stop token or a number of tokens.

    Args:
        stop: token id that ends the text; it is not kept.
        limit: maximal number of tokens.
        other_stop: another id that ends the text; the decoder then reads ``stop`` instead.
    """

    def __init__(self, stop: int, limit: int, other_stop: int | None = None) -> None:
        self.stop, self.limit, self.other_stop = stop, limit, other_stop
        self.tokens: list[int] = []
        self.stopped = False  # True if the stop token was generated

    @property
    def done(self) -> bool:
        """True after the stop token or ``limit`` tokens."""
        return self.stopped or len(self.tokens) >= self.limit

    def allowed(self) -> None:
        """Any token."""
        return None

    def push(self, token: int) -> int:
        """Keep the token, or stop."""
        token = self.stop if token == self.other_stop else token
        self.stopped = token == self.stop
        if not self.stopped:
            self.tokens.append(token)
        return token


class ForcedTokens:
    """Fixed token ids. ``id_tensor`` gives one shared tensor for equal ids."""

    def __init__(
        self, ids: Sequence[int], id_tensor: Callable[[tuple[int, ...]], torch.Tensor]
    ) -> None:
        self.ids, self.id_tensor = list(ids), id_tensor

    @property
    def done(self) -> bool:
        """True after the last token."""
        return not self.ids

    def allowed(self) -> torch.Tensor:
        """The next fixed token."""
        return self.id_tensor((self.ids[0],))

    def push(self, token: int) -> int:
        """Advance by one token."""
        return self.ids.pop(0)


class Segments:
    """Constraints one after the other.

    The stop token of a free text is the first token of the segment after it.
    """

    def __init__(self, segments: Sequence[TokenConstraint]) -> None:
        self.segments = segments

    def _current(self) -> TokenConstraint | None:
        return next((s for s in self.segments if not s.done), None)

    @property
    def done(self) -> bool:
        """True if every segment is complete."""
        return self._current() is None

    def allowed(self) -> torch.Tensor | None:
        """Ids that the current segment allows."""
        current = self._current()
        assert current is not None, "the text is complete"
        return current.allowed()

    def push(self, token: int) -> int:
        """Append a token to the current segment."""
        current = self._current()
        assert current is not None, "the text is complete"
        token = current.push(token)
        following = self._current()
        if isinstance(current, FreeText) and current.stopped and following is not None:
            following.push(token)
        return token


@torch.no_grad()
def generate(
    decoder: Decoder, prefix: Prefix, prompts: Sequence[str], constraints: Sequence[TokenConstraint]
) -> None:
    """Generate greedily until every constraint is done; constraints collect the tokens.

    Logits are computed for allowed ids only.
    """
    state, hidden = decoder.prefill(prefix, prompts)
    pad = decoder.tokenizer.eos_token_id
    while True:
        chosen = [pad] * len(constraints)
        groups: dict[int, tuple[torch.Tensor | None, list[int]]] = {}
        for row, constraint in enumerate(constraints):
            if not constraint.done:
                ids = constraint.allowed()
                groups.setdefault(id(ids), (ids, []))[1].append(row)
        for ids, rows in groups.values():
            some = hidden if len(rows) == len(hidden) else hidden[rows]
            allowed = None if ids is None else ids.to(hidden.device)
            best = decoder.logits(some, allowed).argmax(-1)
            tokens = (best if allowed is None else allowed[best]).tolist()
            for row, token in zip(rows, tokens, strict=True):
                chosen[row] = constraints[row].push(token)
        if all(c.done for c in constraints):
            return
        hidden = decoder.decode_step(state, torch.tensor(chosen, device=hidden.device))
