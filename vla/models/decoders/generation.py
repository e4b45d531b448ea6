"""Generation of one text per row, under constraints on the next token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from vla.models.decoders.base import Decoder, Prefix
from vla.models.decoders.sampling import TokenSampler


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
        first: ids of the first token; None: any.
    """

    def __init__(
        self,
        stop: int,
        limit: int,
        other_stop: int | None = None,
        first: torch.Tensor | None = None,
    ) -> None:
        self.stop, self.limit, self.other_stop, self.first = stop, limit, other_stop, first
        self.tokens: list[int] = []
        self.stopped = False  # True if the stop token was generated

    @property
    def done(self) -> bool:
        """True after the stop token or ``limit`` tokens."""
        return self.stopped or len(self.tokens) >= self.limit

    def allowed(self) -> torch.Tensor | None:
        """Any token, but for the restricted first one."""
        return None if self.tokens else self.first

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


class Choice:
    """One of several texts, which the decoder chooses by their first different token.

    Args:
        options: fixed token ids, none of which begins with another, and the constraints after them.
        id_tensor: gives one shared tensor for equal ids.
    """

    def __init__(
        self,
        options: Sequence[tuple[Sequence[int], Sequence[TokenConstraint]]],
        id_tensor: Callable[[tuple[int, ...]], torch.Tensor],
    ) -> None:
        self.options, self.id_tensor = list(options), id_tensor
        self._read: list[int] = []
        self._rest: Segments | None = None  # what follows the chosen ids

    @property
    def done(self) -> bool:
        """True if a text is chosen and complete."""
        return self._rest is not None and self._rest.done

    def allowed(self) -> torch.Tensor | None:
        """The next ids of the texts that are still possible."""
        if self._rest is not None:
            return self._rest.allowed()
        at = len(self._read)
        return self.id_tensor(tuple(sorted({ids[at] for ids, _ in self.options})))

    def push(self, token: int) -> int:
        """Append a token; texts with another token are no longer possible."""
        if self._rest is not None:
            return self._rest.push(token)
        at = len(self._read)
        self.options = [(ids, rest) for ids, rest in self.options if ids[at] == token]
        self._read.append(token)
        ids, rest = self.options[0]
        if len(ids) == len(self._read):
            self._rest = Segments(rest)
        return token


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
    decoder: Decoder,
    prefix: Prefix,
    prompts: Sequence[str],
    constraints: Sequence[TokenConstraint],
    sampler: TokenSampler | None = None,
) -> None:
    """Generate until every constraint is done; constraints collect the tokens.

    Logits are computed for allowed ids only. Without a ``sampler`` the most likely one is chosen.
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
            logits = decoder.logits(some, allowed)
            best = logits.argmax(-1) if sampler is None else sampler(logits, rows)
            tokens = (best if allowed is None else allowed[best]).tolist()
            for row, token in zip(rows, tokens, strict=True):
                chosen[row] = constraints[row].push(token)
        if all(c.done for c in constraints):
            return
        hidden = decoder.decode_step(state, torch.tensor(chosen, device=hidden.device))


def generate_text(
    decoder: Decoder, prefix: Prefix, prompts: Sequence[str], limit: int
) -> list[str]:
    """The likeliest text after every prompt, up to the end-of-text token or ``limit`` tokens."""
    tokenizer = decoder.tokenizer
    texts = [FreeText(tokenizer.eos_token_id, limit) for _ in prompts]
    generate(decoder, prefix, prompts, texts)
    return [tokenizer.decode(t.tokens, skip_special_tokens=True).strip() for t in texts]
