"""Token ids of action symbols, checked at start-up to be reversible."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch

from vla.models.decoders.text import continuation

Assignment = Literal["integers", "overwrite", "extra"]
Continuations = dict[tuple[int, ...], tuple[int, ...]]
_log = logging.getLogger(__name__)


class VocabularyError(ValueError):
    """The tokenizer cannot write actions this way; the message says which option to choose."""


class ActionVocabulary:
    """Symbols to token ids and back.

    Args:
        token_assignment: ``integers``: the tokenizer's own tokens of the numbers (RT-2-PaLI-X),
            several per number if needed; ``overwrite``: the least used ids get a new meaning
            (RT-2-PaLM-E); ``extra``: new tokens.
        words: word counts of the corpus, for ``overwrite``: its least used ids are taken; without
            it, the ids that the tokenizer's training created last.
        ids: ids to overwrite, from an earlier choice.
        first_number: the number that ``integers`` writes for symbol 0, for example -10.

    Raises:
        VocabularyError: an action does not survive tokenisation, numbers are ambiguous, or
            ``first_number`` is given without ``integers``.
    """

    def __init__(
        self,
        tokenizer: Any,
        symbols: int,
        token_assignment: Assignment = "integers",
        words: Counter[str] | None = None,
        ids: Sequence[int] | None = None,
        first_number: int = 0,
    ) -> None:
        self.tokenizer, self.symbols, self.token_assignment = tokenizer, symbols, token_assignment
        self.first_number = first_number
        self.trainable_token_ids: list[int] = []
        if first_number and token_assignment != "integers":
            raise VocabularyError(
                f"head.first_number={first_number}: token_assignment={token_assignment} writes no "
                "numbers; choose integers, or first_number=0"
            )
        if token_assignment == "integers":
            self.pieces = [continuation(tokenizer, self.text([s])) for s in range(symbols)]
        elif token_assignment == "extra":
            names = [f"<action_{s}>" for s in range(symbols)]
            tokenizer.add_tokens(names)
            self.pieces = [(tokenizer.convert_tokens_to_ids(n),) for n in names]
        else:
            self.pieces = [(i,) for i in (ids or least_used(tokenizer, symbols, words))]
        self._index()
        self._check_reversible()

    def _index(self) -> None:
        self.single = all(len(p) == 1 for p in self.pieces)
        distinct = len(set(self.pieces))
        if distinct != self.symbols:
            raise VocabularyError(
                f"head.token_assignment={self.token_assignment}: only {distinct} distinct token "
                f"strings for {self.symbols} symbols; choose extra or overwrite"
            )
        self.legal = torch.tensor(sorted({i for p in self.pieces for i in p}))
        self.single_ids = torch.tensor([p[0] for p in self.pieces])
        self.symbol_of = {p: s for s, p in enumerate(self.pieces)}
        self.starts = self.continuations(range(self.symbols))
        if self.token_assignment != "integers":
            self.trainable_token_ids = [p[0] for p in self.pieces]

    def continuations(self, symbols: Iterable[int]) -> Continuations:
        """First tokens of any of these numbers -> tokens that may follow them."""
        found: Continuations = {}
        for piece in (self.pieces[s] for s in symbols):
            for n in range(len(piece)):
                if piece[n] not in found.setdefault(piece[:n], ()):
                    found[piece[:n]] += (piece[n],)
        return found

    def _check_reversible(self) -> None:
        """Write an action as text, tokenise it, and compare."""
        if self.token_assignment == "overwrite":
            return  # ids are used directly; no text is tokenised
        sample = [*range(0, self.symbols, max(1, self.symbols // 7)), self.symbols - 1]
        text, expected = self.text(sample), self.tokens(sample)
        actual = list(continuation(self.tokenizer, text))
        if actual != expected:
            other = "overwrite" if self.token_assignment == "extra" else "extra or overwrite"
            raise VocabularyError(
                f"head.token_assignment={self.token_assignment}: the tokenizer reads {text!r} as "
                f"{self.tokenizer.convert_ids_to_tokens(actual)}, not as written; choose {other}"
            )
        if self.single:
            return
        for piece in self.pieces:
            # Ambiguous: a number that is the beginning of others, and the next number may begin
            # with the token that would continue it.
            if set(self.starts.get(piece, ())) & set(self.starts[()]):
                raise VocabularyError(
                    "head.token_assignment=integers: "
                    f"{self.text([self.symbol_of[piece]])!r} and the next number "
                    "cannot be distinguished; choose extra or overwrite"
                )
        _log.warning(
            "head.token_assignment=integers: this tokenizer writes numbers as up to %d tokens; "
            "decoding is slower and, as it takes the likeliest token, prefers numbers that begin "
            "alike (negative ones); extra and overwrite need one token per number",
            max(len(p) for p in self.pieces),
        )

    def tokens(self, symbols: list[int]) -> list[int]:
        """Token ids of a sequence of symbols."""
        return [i for s in symbols for i in self.pieces[s]]

    def symbol(self, piece: tuple[int, ...]) -> int:
        """The symbol of complete token ids.

        Raises:
            VocabularyError: the token ids are not a symbol.
        """
        if piece not in self.symbol_of:
            tokens = self.tokenizer.convert_ids_to_tokens(list(piece))
            raise VocabularyError(f"token ids {list(piece)} ({tokens}) are not an action")
        return self.symbol_of[piece]

    def text(self, symbols: list[int]) -> str:
        """The action string, as RT-2 writes it: ``1 128 91 241 5 101 127 0``."""
        if self.token_assignment == "overwrite":
            return self.tokenizer.decode(self.tokens(symbols))
        extra = self.token_assignment == "extra"
        return "".join(f"<action_{s}>" if extra else f" {s + self.first_number}" for s in symbols)


def least_used(tokenizer: Any, count: int, words: Counter[str] | None) -> list[int]:
    """The ids that the corpus uses least, without special tokens; ties: newest ids first.

    Raises:
        VocabularyError: the tokenizer has too few ids.
    """
    used: Counter[int] = Counter()
    for word, times in (words or Counter()).items():
        for i in continuation(tokenizer, f" {word}"):
            used[i] += times
    added = set(tokenizer.get_added_vocab().values()) | set(tokenizer.all_special_ids)
    free = sorted(
        (i for i in tokenizer.get_vocab().values() if i not in added), key=lambda i: (used[i], -i)
    )
    if len(free) < count:
        raise VocabularyError(
            f"head.token_assignment=overwrite: the tokenizer has {len(free)} ordinary ids, "
            f"{count} are needed; choose extra"
        )
    return sorted(free[:count])
