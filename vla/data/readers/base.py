"""What every reader of robot data gives: recordings as they are on disk, before any choice of fields, units or rates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from vla.data.manifest import DataError

Frames = Callable[[Sequence[int]], Iterator[np.ndarray]]  # rows in rising order to pictures (H, W, 3) uint8, one at a time


@dataclass(frozen=True)
class Field:
    """One column: pictures, numbers (of so many dims, with names where the format has them) or text."""

    kind: Literal["image", "numbers", "text"]
    dims: int = 0
    names: tuple[str, ...] = ()


@dataclass
class Recording:
    """One episode as recorded.

    numbers: field -> (T, dims) float32 or (T, dims) int64; frames: field -> ``Frames``; texts: field -> T texts; instruction: as the format
    gives it, may be empty; fps: rows a second.
    """

    key: str
    steps: int
    fps: float
    instruction: str
    numbers: dict[str, np.ndarray]
    frames: dict[str, Frames]
    texts: dict[str, list[str]] = field(default_factory=dict)


class Reader(Protocol):
    """A folder or file of recordings. ``missing``: what its description promises and its files lack, for one message."""

    path: Path
    format: str
    robot: str
    fps: float
    fields: dict[str, Field]
    missing: list[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Recording: ...


def need(module: str) -> Any:
    """Import a reader's library.

    Raises:
        DataError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(f"reading this format needs {module.split('.')[0]}; install it: pip install 'vla[data]'") from error


def names_of(value: Any, dims: int, where: str) -> tuple[str, ...]:
    """Dim names from what data sets write: a list, a list in a list, a mapping with lists, or nothing; () for nothing, or one name for all ``dims``.

    Raises:
        DataError: several names, but not one a dim, or one twice; the message begins with ``where``.
    """
    if isinstance(value, dict):
        flat = [n for part in value.values() for n in (part if isinstance(part, list) else [])]
        value = flat or list(value)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if not isinstance(value, list) or (len(value) < 2 and dims != len(value)):
        return ()
    if len(value) != dims or len({str(v) for v in value}) != dims:
        listed = ", ".join(str(v) for v in value)
        raise DataError(f"{where}: {len(value)} names for {dims} numbers ({listed}); give every number a name of its own, or null")
    return tuple(str(v) for v in value)


def ranges(numbers: Sequence[int]) -> str:
    """``0-9, 11, 13-20``."""
    parts: list[str] = []
    first = last = None
    for n in [*sorted(numbers), None]:
        if first is None:
            first = last = n
        elif n is not None and last is not None and n == last + 1:
            last = n
        else:
            parts.append(str(first) if first == last else f"{first}-{last}")
            first = last = n
    return ", ".join(parts)
