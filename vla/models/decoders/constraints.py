"""Constraints on generated text: which token may come next, and when the text is complete."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # exported policies use numpy arrays in the place of tensors, without torch
    import torch


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

    def fork(self) -> TokenConstraint:
        """A copy with the same tokens so far; tokens of one do not change the other."""
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

    def fork(self) -> FreeText:
        """See ``TokenConstraint``."""
        other = copy.copy(self)
        other.tokens = list(self.tokens)
        return other


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

    def fork(self) -> ForcedTokens:
        """See ``TokenConstraint``."""
        return ForcedTokens(self.ids, self.id_tensor)


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

    def fork(self) -> Choice:
        """See ``TokenConstraint``."""
        other = copy.copy(self)
        other._read = list(self._read)
        if self._rest is None:
            other.options = [(ids, [c.fork() for c in rest]) for ids, rest in self.options]
        else:
            other._rest = self._rest.fork()
        return other


class Segments:
    """Constraints one after the other.

    The stop token of a free text is the first token of the segment after it.
    """

    def __init__(self, segments: Sequence[TokenConstraint]) -> None:
        self.segments = segments
        self._complete = 0  # segments at the start that are complete; they stay so

    def _current(self) -> TokenConstraint | None:
        while self._complete < len(self.segments):
            if not self.segments[self._complete].done:
                return self.segments[self._complete]
            self._complete += 1
        return None

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

    def fork(self) -> Segments:
        """See ``TokenConstraint``."""
        return Segments([segment.fork() for segment in self.segments[self._complete :]])
