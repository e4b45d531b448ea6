"""Which token ids mean which symbol. Proves at start-up that what is written comes back, or says what to choose instead."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import torch

from vla.decoders.text import continuation

Assignment = Literal["integers", "overwrite", "extra"]
_log = logging.getLogger(__name__)


class VocabularyError(ValueError):
    """The tokenizer cannot write actions this way; the message says what to choose instead."""


class ActionVocabulary:
    """Symbols to token ids.

    assign: ``integers``: the tokenizer's own tokens for the numbers (RT-2-PaLI-X), several a number where it has no single ones;
    ``overwrite``: the least used ids take on a new meaning (RT-2-PaLM-E); ``extra``: new tokens.

    Args:
        words: counts of the corpus's words, for ``overwrite``: ids that they use least are taken; without, those the tokenizer's merges made last.
        ids: the ids to overwrite, chosen earlier.

    Raises:
        VocabularyError: the written action does not come back, or cannot be told apart.
    """

    def __init__(
        self,
        tokenizer: Any,
        symbols: int,
        assign: Assignment = "integers",
        words: Counter[str] | None = None,
        ids: Sequence[int] | None = None,
    ) -> None:
        self.tokenizer, self.symbols, self.assign = tokenizer, symbols, assign
        self.new_rows: list[int] = []
        if assign == "integers":
            self.pieces = [continuation(tokenizer, f" {s}") for s in range(symbols)]
        elif assign == "extra":
            names = [f"<action_{s}>" for s in range(symbols)]
            tokenizer.add_tokens(names)
            self.pieces = [(tokenizer.convert_tokens_to_ids(n),) for n in names]
        else:
            self.pieces = [(i,) for i in (ids or least_used(tokenizer, symbols, words))]
        self._index()
        self._prove()

    def _index(self) -> None:
        self.single = all(len(p) == 1 for p in self.pieces)
        if len(set(self.pieces)) != self.symbols:
            raise VocabularyError(
                f"head.assign={self.assign}: only {len(set(self.pieces))} distinct token strings for {self.symbols} symbols; choose extra or overwrite"
            )
        self.legal = torch.tensor(sorted({i for p in self.pieces for i in p}))
        self.single_ids = torch.tensor([p[0] for p in self.pieces])
        self._symbol_of = {p: s for s, p in enumerate(self.pieces)}
        self.starts: dict[tuple[int, ...], tuple[int, ...]] = {}  # what may follow the first tokens of a number
        for piece in self.pieces:
            for n in range(len(piece)):
                head = piece[:n]
                if piece[n] not in self.starts.setdefault(head, ()):
                    self.starts[head] += (piece[n],)
        if self.assign != "integers":
            self.new_rows = [p[0] for p in self.pieces]

    def _prove(self) -> None:
        """Write an action as text, tokenise it, and get it back."""
        if self.assign == "overwrite":
            return  # ids stand for themselves: no text is ever tokenised
        sample = [*range(0, self.symbols, max(1, self.symbols // 7)), self.symbols - 1]
        text, wanted = self.text(sample), self.tokens(sample)
        if list(continuation(self.tokenizer, text)) != wanted:
            other = "overwrite" if self.assign == "extra" else "extra or overwrite"
            raise VocabularyError(
                f"head.assign={self.assign}: the tokenizer reads {text!r} as {self.tokenizer.convert_ids_to_tokens(list(continuation(self.tokenizer, text)))}, not as written; choose {other}"
            )
        if self.single:
            return
        for piece in self.pieces:  # a whole number that others begin with: may the next number begin with the same token?
            if set(self.starts.get(piece, ())) & set(self.starts[()]):
                raise VocabularyError(
                    f"head.assign=integers: {self.text([self._symbol_of[piece]])!r} and the number behind it cannot be told apart; choose extra or overwrite"
                )
        longest = max(len(p) for p in self.pieces)
        _log.warning(
            "head.assign=integers: this tokenizer writes numbers as up to %d tokens; that is correct but slower; extra or overwrite need one",
            longest,
        )

    def tokens(self, symbols: list[int]) -> list[int]:
        """Token ids of symbols, one behind the other."""
        return [i for s in symbols for i in self.pieces[s]]

    def symbol(self, piece: tuple[int, ...]) -> int:
        """The symbol of a whole piece; one that is no action is an error, never a zero."""
        if piece not in self._symbol_of:
            raise VocabularyError(
                f"token ids {list(piece)} ({self.tokenizer.convert_ids_to_tokens(list(piece))}) are not an action"
            )
        return self._symbol_of[piece]

    def text(self, symbols: list[int]) -> str:
        """The action string, as RT-2 writes it: ``1 128 91 241 5 101 127 0``."""
        if self.assign == "overwrite":
            return self.tokenizer.decode(self.tokens(symbols))
        return "".join(f"<action_{s}>" if self.assign == "extra" else f" {s}" for s in symbols)


def least_used(tokenizer: Any, count: int, words: Counter[str] | None) -> list[int]:
    """Ids that the corpus uses least (ties: made last by the tokenizer's training), never special ones.

    Raises:
        VocabularyError: there are not so many.
    """
    used: Counter[int] = Counter()
    for word, times in (words or Counter()).items():
        for i in continuation(tokenizer, f" {word}"):
            used[i] += times
    added = set(tokenizer.get_added_vocab().values()) | set(tokenizer.all_special_ids)
    free = sorted((i for i in tokenizer.get_vocab().values() if i not in added), key=lambda i: (used[i], -i))
    if len(free) < count:
        raise VocabularyError(
            f"head.assign=overwrite: the tokenizer has {len(free)} ordinary ids, {count} are needed; choose extra"
        )
    return sorted(free[:count])
