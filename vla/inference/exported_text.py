"""Which tokens an exported policy may write, from ``decoding.json``; numpy only.

``Action`` follows the rules of ``models/actions/constrained_decoding.py``, which needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vla.models.decoders.constraints import Choice, ForcedTokens, FreeText

Pick = Callable[[np.ndarray, int], int]  # logits (n,) and a row to an index


class ActionRules:
    """Tokens of the numbers of an action chunk, from the table ``action``."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self.pieces = [tuple(piece) for piece in table["pieces"]]
        self.symbol_of = {piece: symbol for symbol, piece in enumerate(self.pieces)}
        self.single: bool = table["single"]
        self.eos: int = table["eos"]
        self.symbols: list[list[int] | None] = table["symbols"]
        self.count: int | None = table["count"]
        self.sizes = np.array(table["sizes"] or [1])
        self.total: int = table["total"]
        self._ids: dict[Any, np.ndarray] = {}
        self._tries: dict[int, dict[tuple[int, ...], tuple[int, ...]]] = {}

    def following(self, symbols: list[int]) -> list[int] | None:
        """Symbols that may come next: None for any, empty when the chunk is complete."""
        if self.count is not None:
            return None if len(symbols) < self.count else []
        missing = self.total - int(self.sizes[symbols].sum() if symbols else 0)
        return np.flatnonzero(self.sizes <= missing).tolist()

    def single_ids(self, symbols: list[int]) -> np.ndarray:
        """Ids that may follow, where every symbol is one token."""
        following, dim = self.following(symbols), len(symbols) % len(self.symbols)
        if following is None:
            following = self.symbols[dim]
        key = dim if self.count is not None else len(following or ())
        if key not in self._ids:
            chosen = range(len(self.pieces)) if following is None else following
            self._ids[key] = np.array([self.pieces[s][0] for s in chosen])
        return self._ids[key]

    def trie(self, position: int) -> dict[tuple[int, ...], tuple[int, ...]]:
        """First tokens of number ``position`` of a chunk -> tokens that may follow them."""
        dim = position % len(self.symbols)
        if dim not in self._tries:
            found: dict[tuple[int, ...], tuple[int, ...]] = {}
            chosen = self.symbols[dim]
            for symbol in range(len(self.pieces)) if chosen is None else chosen:
                piece = self.pieces[symbol]
                for n in range(len(piece)):
                    if piece[n] not in found.setdefault(piece[:n], ()):
                        found[piece[:n]] += (piece[n],)
            self._tries[dim] = found
        return self._tries[dim]

    def is_number(self, position: int, piece: tuple[int, ...]) -> bool:
        """True if these tokens are a complete number that ``position`` may have."""
        symbols, symbol = self.symbols[position % len(self.symbols)], self.symbol_of.get(piece)
        return symbol is not None and (symbols is None or symbol in symbols)


class Action:
    """One action chunk."""

    def __init__(self, rules: ActionRules) -> None:
        self.rules, self.done = rules, False
        self.symbols: list[int] = []
        self.piece: tuple[int, ...] = ()

    def allowed(self) -> np.ndarray:
        """Ids that continue the number, begin the next one, or end the chunk."""
        rules, position = self.rules, len(self.symbols)
        if rules.single:
            return rules.single_ids(self.symbols)
        continuing = rules.trie(position).get(self.piece, ())
        if not rules.is_number(position, self.piece):
            return np.array(continuing)
        more = rules.following([*self.symbols, rules.symbol_of[self.piece]]) is None
        return np.array(continuing + (rules.trie(position + 1)[()] if more else (rules.eos,)))

    def push(self, token: int) -> int:
        """Append one token."""
        rules = self.rules
        if rules.single:
            self.symbols.append(rules.symbol_of[(token,)])
            self.done = rules.following(self.symbols) == []
        elif token in rules.trie(len(self.symbols)).get(self.piece, ()):
            self.piece = (*self.piece, token)
        else:
            self.symbols.append(rules.symbol_of[self.piece])
            self.piece, self.done = (token,), token == rules.eos
        return token


def make_segments(
    described: Sequence[Mapping[str, Any]], vocabulary: int, free: list[FreeText]
) -> list[Any]:
    """The segments of ``decoding.json``; free texts are also appended to ``free``."""
    made: list[Any] = []
    for segment in described:
        kind = segment["kind"]
        if kind == "forced":
            made.append(ForcedTokens(segment["ids"], _array))
        elif kind == "choice":
            options = [
                (o["ids"], make_segments(o["then"], vocabulary, free)) for o in segment["options"]
            ]
            made.append(Choice(options, _array))
        else:
            first, others = segment["not_first"], np.arange(vocabulary)
            allowed: Any = None if first is None else others[others != first]
            made.append(FreeText(segment["stop"], segment["limit"], segment["other_stop"], allowed))
            free.append(made[-1])
    return made


def _array(ids: Sequence[int]) -> Any:
    return np.array(ids)


def sampling_pick(sampling: Mapping[str, Any], row_seeds: Sequence[int]) -> Pick:
    """The choice of the most likely token, or of a random one (see ``TokenSampler``)."""
    temperature, top_k = sampling["temperature"], sampling["top_k"]
    if not temperature:
        return lambda logits, row: int(logits.argmax())
    random = [np.random.default_rng([sampling["seed"], seed]) for seed in row_seeds]

    def pick(logits: np.ndarray, row: int) -> int:
        index = np.argsort(-logits, kind="stable")[: top_k or None]
        scaled = (logits[index] / np.float32(temperature)).astype(np.float64)
        cumulative = np.exp(scaled - scaled.max())
        cumulative = (cumulative / cumulative.sum()).cumsum()
        drawn = np.searchsorted(cumulative, random[row].random() * cumulative[-1], side="right")
        return int(index[min(int(drawn), len(index) - 1)])

    return pick
