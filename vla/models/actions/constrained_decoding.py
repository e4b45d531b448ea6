"""Constrained decoding of actions: only complete, legal action chunks can be generated."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from vla.models.actions.vocabulary import ActionVocabulary, Continuations
from vla.types import ActionSpace


class ActionTokenRules:
    """Which token ids may follow each other in an action.

    Every set of ids is one shared tensor, so that ``generate`` can group rows by identity. With a
    codec of one symbol per number, whole-number dimensions (``ActionSpace.integer``) have the
    symbols of their whole numbers only.
    """

    def __init__(
        self, codec: Any, vocabulary: ActionVocabulary, eos: int, space: ActionSpace
    ) -> None:
        self.codec, self.vocabulary, self.eos, self.dim = codec, vocabulary, eos, space.dim
        self._ids: dict[tuple[int, ...], torch.Tensor] = {}
        self._single_ids: dict[tuple[int, ...], torch.Tensor] = {}
        # Allowed symbols of each action dimension; None: all.
        self._symbols = [integer_symbols(codec, space, k) for k in range(space.dim)]
        self._continuations: dict[tuple[int, ...], Continuations] = {}
        self._after: dict[tuple[int, tuple[int, ...], bool], torch.Tensor] = {}

    def symbols(self, position: int) -> tuple[int, ...] | None:
        """Symbols that number ``position`` of a chunk may have; None: all."""
        return self._symbols[position % len(self._symbols)]

    def continuations(self, position: int) -> Continuations:
        """First tokens of number ``position`` -> tokens that may follow them."""
        symbols = self.symbols(position)
        if symbols is None:
            return self.vocabulary.starts
        if symbols not in self._continuations:
            self._continuations[symbols] = self.vocabulary.continuations(symbols)
        return self._continuations[symbols]

    def is_number(self, position: int, piece: tuple[int, ...]) -> bool:
        """True if these tokens are a complete number that ``position`` may have."""
        symbols = self.symbols(position)
        symbol = self.vocabulary.symbol_of.get(piece)
        return symbol is not None and (symbols is None or symbol in symbols)

    def after(self, position: int, piece: tuple[int, ...], ends: bool) -> torch.Tensor:
        """Ids that may follow the first tokens ``piece`` of number ``position``.

        Args:
            ends: the chunk may end after this number, so that no other number follows.
        """
        key = (position % self.dim, piece, ends)
        if key not in self._after:
            found = self.continuations(position).get(piece, ())
            if self.is_number(position, piece):
                found += (self.eos,) if ends else self.continuations(position + 1)[()]
            self._after[key] = self.ids(found)
        return self._after[key]

    def ids(self, tokens: tuple[int, ...]) -> torch.Tensor:
        """The shared tensor of these token ids."""
        if tokens not in self._ids:
            self._ids[tokens] = torch.tensor(tokens)
        return self._ids[tokens]

    def single_ids(self, symbols: tuple[int, ...]) -> torch.Tensor:
        """The shared tensor of these symbols' token ids, for vocabularies of single tokens."""
        if symbols not in self._single_ids:
            self._single_ids[symbols] = self.vocabulary.single_ids[torch.tensor(symbols)]
        return self._single_ids[symbols]

    def targets(self, symbols: list[int]) -> list[int]:
        """Target token ids of an action.

        Where numbers have several tokens, the end-of-text token completes the last number.
        """
        tokens = self.vocabulary.tokens(symbols)
        return tokens if self.vocabulary.single else [*tokens, self.eos]


class ActionConstraint:
    """Constraint of one action chunk (see ``generation.TokenConstraint``).

    Args:
        first: the first symbols of the chunk, which are written before this constraint applies.
    """

    def __init__(self, token_rules: ActionTokenRules, first: Sequence[int] = ()) -> None:
        self.token_rules, self.done = token_rules, False
        self.symbols = list(first)
        self.piece: tuple[int, ...] = ()  # tokens of the number that is not complete yet

    def allowed(self) -> torch.Tensor:
        """Ids that continue the number, begin the next one, or end the chunk."""
        rules, vocabulary = self.token_rules, self.token_rules.vocabulary
        position = len(self.symbols)
        if vocabulary.single:
            following = rules.codec.following(self.symbols)
            following = rules.symbols(position) if following is None else following
            return vocabulary.single_ids if following is None else rules.single_ids(following)
        symbol = vocabulary.symbol_of.get(self.piece)
        symbols = self.symbols if symbol is None else [*self.symbols, symbol]
        return rules.after(position, self.piece, rules.codec.following(symbols) is not None)

    def push(self, token: int) -> int:
        """Append one token."""
        rules, vocabulary = self.token_rules, self.token_rules.vocabulary
        if vocabulary.single:
            self.symbols.append(vocabulary.symbol((token,)))
            self.done = rules.codec.following(self.symbols) == ()
            return token
        piece, position = (*self.piece, token), len(self.symbols)
        if piece in rules.continuations(position) or rules.is_number(position, piece):
            self.piece = piece
            return token
        self.symbols.append(vocabulary.symbol(self.piece))
        self.piece = (token,)
        self.done = token == rules.eos
        return token

    def fork(self) -> ActionConstraint:
        """See ``TokenConstraint``."""
        other = copy.copy(self)
        other.symbols = list(self.symbols)
        return other


def integer_symbols(codec: Any, space: ActionSpace, dim: int) -> tuple[int, ...] | None:
    """The symbols of the whole numbers of an action dimension.

    Whole numbers that the codec cannot represent are left out. None: the dimension is not in
    ``space.integer``, the codec has no symbol for a single number, or no number is left.

    Raises:
        ValueError: the codec has fewer bins than the dimension has whole numbers.
    """
    if codec.length is None or space.names[dim] not in space.integer:
        return None
    count = round(space.high[dim] - space.low[dim]) + 1
    if count > codec.symbols:
        raise ValueError(
            f"head.codec: {codec.symbols} bins cannot represent the {count} whole numbers of the "
            f"action dim {space.names[dim]!r}; increase head.codec.bins"
        )
    normalized = torch.zeros(count, space.dim)
    normalized[:, dim] = torch.linspace(-1, 1, count)
    index = codec.index(normalized)
    error = (codec.value(index) - normalized)[:, dim].abs()
    kept = index[error < 1 / (count - 1), dim]  # half the distance of two whole numbers
    return tuple(sorted(set(kept.tolist()))) or None
