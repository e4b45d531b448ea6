"""Speculative decoding of one row: tokens are proposed from a draft and checked in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from vla.models.decoders.constraints import TokenConstraint
from vla.models.decoders.legal import legal_set


@dataclass
class Draft:
    """The last text of one episode, which is the draft of its next text.

    steps: control steps between two texts.
    before: token ids before the action: plan and ``Action:``.
    symbols: symbols of the action chunk.
    passes, tokens: decoder passes and generated tokens since the start of the episode.
    ids: token ids of the whole last text.
    """

    steps: int = 1
    before: list[int] = field(default_factory=list)
    symbols: list[int] = field(default_factory=list)
    passes: int = 0
    tokens: int = 0
    ids: list[int] = field(default_factory=list)

    def replace(
        self, tokens: list[int], passes: int, before: list[int], symbols: list[int]
    ) -> None:
        """Keep a new text, which was generated in ``passes`` passes."""
        self.before, self.symbols, self.ids = before, symbols, tokens
        self.passes += passes
        self.tokens += len(tokens)


class DraftedText:
    """One row of ``generate``.

    Args:
        constraint: collects the chosen tokens.
        draft: token ids that the text may have.
        room: most tokens of the text.
    """

    def __init__(self, constraint: TokenConstraint, draft: Sequence[int], room: int) -> None:
        self.constraint, self.room = constraint, room
        self.tokens: list[int] = []  # of the text, as the decoder reads them
        self.kept = 0  # tokens of the last pass that belong to the text
        # Allowed ids before every proposed token, and those after the last one.
        self.allowed: list[torch.Tensor | None] = []
        self._draft = list(draft)
        self._unread: list[int] = []  # chosen tokens that the decoder has not read
        self._proposal: list[int] = []
        self._used: list[int] = []  # draft tokens that are used up after each proposed one

    @property
    def done(self) -> bool:
        """True if the text is complete."""
        return self.constraint.done

    @property
    def first(self) -> int:
        """Index of the hidden state that predicts the first token of ``allowed``."""
        return max(len(self._unread) - 1, 0)

    @property
    def left(self) -> int:
        """Tokens for which there is room after the chosen ones; at least 0."""
        return max(self.room - len(self.tokens), 0)

    def propose(self, most: int) -> list[int]:
        """Token ids that the decoder reads next: chosen ones, then at most ``most`` proposed."""
        self._proposal, self._used, self.allowed = [], [], []
        if self.done:
            self.kept = 0
            return []
        ahead, used = self.constraint.fork() if most else self.constraint, 0
        while not ahead.done:
            ids = ahead.allowed()
            self.allowed.append(ids)
            token = self._next(ids, used) if len(self._proposal) < most else None
            if token is None:
                break
            used += used < len(self._draft) and token == self._draft[used]
            self._proposal.append(ahead.push(token))
            self._used.append(used)
        return self._unread + self._proposal

    def _next(self, ids: torch.Tensor | None, used: int) -> int | None:
        """The next proposed token: the only one, or that of the draft if it is legal."""
        token = self._draft[used] if used < len(self._draft) else None
        if ids is None:
            return token
        legal = legal_set(ids)
        return legal.only if legal.only is not None or token not in legal.members else token

    def accept(self, choose: Callable[[int], int], likely: Sequence[int]) -> None:
        """Append tokens up to the first that differs from the proposal.

        What the decoder predicts after that token, which it has not read yet, is the next draft
        (Jacobi decoding, arXiv 2305.10427).

        Args:
            choose: index in ``allowed`` to the chosen token.
            likely: the most likely token for each of ``allowed``.
        """
        for k in range(len(self.allowed)):
            token = self.constraint.push(choose(k))
            self.tokens.append(token)
            wrong = k == len(self._proposal) or token != self._proposal[k]
            if wrong or self.done:
                break
        else:
            return
        self.kept, self._unread = len(self._unread) + k, [token]
        used = self._used[k - 1] if k else 0
        if self.allowed[k] is None and token in self._draft[used:]:  # a plan of another length
            self._draft = self._draft[self._draft.index(token, used) + 1 :]
        else:
            used = self._used[-1] if self._used else 0
            self._draft = [*likely[k + 1 :], *self._draft[used + 1 :]]

    def keep(self, count: int) -> None:
        """Keep only ``count`` tokens of the last pass; the decoder reads the others again."""
        if self.kept > count:
            self._unread = self.tokens[count - self.kept - 1 :]
            self.kept = count
