"""Constrained decoding of actions: only complete, legal action chunks can be generated."""

from __future__ import annotations

from typing import Any

import torch

from vla.models.actions.vocabulary import ActionVocabulary


class ActionTokenRules:
    """Which token ids may follow each other in an action.

    Every set of ids is one shared tensor, so that ``generate`` can group rows by identity.
    """

    def __init__(self, codec: Any, vocabulary: ActionVocabulary, eos: int) -> None:
        self.codec, self.vocabulary, self.eos = codec, vocabulary, eos
        self._ids: dict[tuple[int, ...], torch.Tensor] = {}
        self._single_ids: dict[tuple[int, ...], torch.Tensor] = {}

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
    """Constraint of one action chunk (see ``generation.TokenConstraint``)."""

    def __init__(self, token_rules: ActionTokenRules) -> None:
        self.token_rules, self.done = token_rules, False
        self.symbols: list[int] = []
        self.piece: tuple[int, ...] = ()  # tokens of the number that is not complete yet

    def allowed(self) -> torch.Tensor:
        """Ids that continue the number, begin the next one, or end the chunk."""
        rules, vocabulary = self.token_rules, self.token_rules.vocabulary
        if vocabulary.single:
            following = rules.codec.following(self.symbols)
            return vocabulary.single_ids if following is None else rules.single_ids(following)
        continuing = vocabulary.starts.get(self.piece, ())
        if self.piece not in vocabulary.symbol_of:
            return rules.ids(continuing)
        symbols = [*self.symbols, vocabulary.symbol(self.piece)]
        incomplete = rules.codec.following(symbols) is None
        return rules.ids(continuing + (vocabulary.starts[()] if incomplete else (rules.eos,)))

    def push(self, token: int) -> int:
        """Append one token."""
        rules, vocabulary = self.token_rules, self.token_rules.vocabulary
        if vocabulary.single:
            self.symbols.append(vocabulary.symbol((token,)))
            self.done = rules.codec.following(self.symbols) == ()
            return token
        if token in vocabulary.starts.get(self.piece, ()):
            self.piece = (*self.piece, token)
            return token
        self.symbols.append(vocabulary.symbol(self.piece))
        self.piece = (token,)
        self.done = token == rules.eos
        return token
