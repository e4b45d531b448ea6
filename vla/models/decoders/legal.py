"""What is known of a set of token ids that may come next."""

from __future__ import annotations

import weakref

import torch


class LegalSet:
    """A set of token ids; equal sets are one tensor, so each tensor is read once.

    tokens: the ids in the order of the tensor.
    members: the ids as a set.
    only: the id of a set with one id, else None.
    """

    def __init__(self, ids: torch.Tensor) -> None:
        self.tokens: list[int] = ids.tolist()
        self.members = frozenset(self.tokens)
        self.only = self.tokens[0] if len(self.tokens) == 1 else None


_KNOWN: dict[int, tuple[weakref.ref[torch.Tensor], LegalSet]] = {}


def legal_set(ids: torch.Tensor) -> LegalSet:
    """The set of these ids; it is kept as long as the tensor exists."""
    key = id(ids)
    known = _KNOWN.get(key)
    if known is not None and known[0]() is ids:
        return known[1]
    found = LegalSet(ids)
    _KNOWN[key] = weakref.ref(ids, lambda _: _KNOWN.pop(key, None)), found
    return found
