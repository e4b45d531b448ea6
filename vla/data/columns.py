"""The recorded dimensions that a mapping chooses for the action or the state."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from vla.data.readers.base import Reader, Recording
from vla.errors import DataError

_SLICE = re.compile(r"^(?P<field>[^\[\]]+)(\[(?P<first>\d+):(?P<last>\d+)\])?$")


def short_name(field: str) -> str:
    """The last part of a field's name."""
    return re.split(r"[./]", field)[-1]


class Columns:
    """The recorded dimensions of one vector, and their names.

    Raises:
        DataError: an unknown field, or dimensions that it does not have.
    """

    def __init__(self, reader: Reader, wanted: list[str], what: str) -> None:
        self.parts: list[tuple[str, slice]] = []
        self.names: list[str] = []
        self.widths: list[int] = []  # all recorded dimensions of the field of each part
        for entry in wanted:
            match = _SLICE.match(entry)
            name = match["field"] if match else entry
            known = {n: f for n, f in reader.fields.items() if f.kind == "numbers"}
            if name in reader.unusable:
                raise DataError(
                    f"{reader.path}: mapping.{what}: {reader.unusable[name]}; "
                    f"or name other fields in source.mapping.{what}"
                )
            if match is None or name not in known:
                raise DataError(
                    f"{reader.path}: mapping.{what}: no field {entry!r}; "
                    f"its number fields are {', '.join(known)}"
                )
            dims = known[name].dims
            first, end = int(match["first"] or 0), int(match["last"] or dims)
            if not 0 <= first < end <= dims:
                raise DataError(
                    f"{reader.path}: mapping.{what}: {entry!r}: {name} has dims 0 to {dims}"
                )
            self.parts.append((name, slice(first, end)))
            self.widths.append(dims)
            named = known[name].names or tuple(f"{short_name(name)}_{n}" for n in range(dims))
            self.names += named[first:end]
        if len(set(self.names)) != len(self.names):
            self.names = [f"{what}_{n}" for n in range(len(self.names))]

    def take(self, recording: Recording) -> np.ndarray:
        """(T, dims)."""
        return np.concatenate([recording.numbers[name][:, dims] for name, dims in self.parts], 1)

    def entries(self, kept: Sequence[bool]) -> list[str]:
        """Entries of a mapping for some of the dimensions, ``field`` or ``field[0:6]``."""
        found, at = [], 0
        for (name, dims), width in zip(self.parts, self.widths, strict=True):
            chosen = [k for k in range(dims.start, dims.stop) if kept[at + k - dims.start]]
            at += dims.stop - dims.start
            for first, last in _runs(chosen):
                whole = (first, last) == (0, width - 1)
                found.append(name if whole else f"{name}[{first}:{last + 1}]")
        return found


def _runs(rising: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of every run of successive numbers."""
    for _, run in groupby(enumerate(rising), lambda pair: pair[1] - pair[0]):
        numbers = [number for _, number in run]
        yield numbers[0], numbers[-1]
