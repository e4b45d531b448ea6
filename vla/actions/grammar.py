"""What may be written as an action, token by token: only whole, legal chunks can come out."""

from __future__ import annotations

from typing import Any

import torch

from vla.actions.vocabulary import ActionVocabulary


class ActionGrammar:
    """Codec and vocabulary together; keeps one tensor of ids for every situation, so that rows of a batch can share a decision."""

    def __init__(self, codec: Any, vocabulary: ActionVocabulary, eos: int) -> None:
        self.codec, self.vocabulary, self.eos = codec, vocabulary, eos
        self._sets: dict[tuple[int, ...], torch.Tensor] = {}

    def ids(self, tokens: tuple[int, ...]) -> torch.Tensor:
        """The one tensor of these ids."""
        if tokens not in self._sets:
            self._sets[tokens] = torch.tensor(tokens)
        return self._sets[tokens]

    def targets(self, symbols: list[int]) -> list[int]:
        """What training writes: the tokens, and an end where only an end tells that the last number is whole."""
        tokens = self.vocabulary.tokens(symbols)
        return tokens if self.vocabulary.single else [*tokens, self.eos]


class ActionWriter:
    """One row's chunk of actions being written."""

    def __init__(self, grammar: ActionGrammar) -> None:
        self.grammar, self.done = grammar, False
        self.symbols: list[int] = []
        self.piece: tuple[int, ...] = ()

    def allowed(self) -> torch.Tensor:
        """Ids that continue the number, begin the next, or end the chunk."""
        vocabulary, codec = self.grammar.vocabulary, self.grammar.codec
        if vocabulary.single:
            following = codec.following(self.symbols)
            return vocabulary.single_ids if following is None else self._pieces(following)
        inside = vocabulary.starts.get(self.piece, ())
        if self.piece not in vocabulary._symbol_of:
            return self.grammar.ids(inside)
        whole = [*self.symbols, vocabulary.symbol(self.piece)]
        return self.grammar.ids(inside + (vocabulary.starts[()] if codec.following(whole) is None else (self.grammar.eos,)))

    def _pieces(self, following: tuple[int, ...]) -> torch.Tensor:
        key = following
        if key not in self.grammar._sets:
            self.grammar._sets[key] = self.grammar.vocabulary.single_ids[torch.tensor(following)]
        return self.grammar._sets[key]

    def push(self, token: int) -> int:
        """Take one token."""
        vocabulary, codec = self.grammar.vocabulary, self.grammar.codec
        if vocabulary.single:
            self.symbols.append(vocabulary.symbol((token,)))
            self.done = codec.following(self.symbols) == ()
            return token
        if token in vocabulary.starts.get(self.piece, ()):
            self.piece = (*self.piece, token)
            return token
        self.symbols.append(vocabulary.symbol(self.piece))
        self.piece = (token,)
        self.done = token == self.grammar.eos
        return token
