"""The interface of a reader: recordings as they are on disk, before any mapping."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from vla.errors import DataError

# Rows in rising order -> their images, (H, W, 3) uint8, one at a time.
Frames = Callable[[Sequence[int]], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Field:
    """One recorded column."""

    kind: Literal["image", "numbers", "text"]
    dims: int = 0  # numbers per row
    names: tuple[str, ...] = ()  # names of the dimensions, if the format has them


@dataclass
class Recording:
    """One episode as recorded; T rows."""

    key: str  # unique in the data set
    steps: int  # T
    fps: float  # rows per second; 0: unknown
    instruction: str  # empty if the format has none
    numbers: dict[str, np.ndarray]  # field -> (T, dims)
    frames: dict[str, Frames]  # image field -> its images
    texts: dict[str, list[str]] = field(default_factory=dict)  # text field -> T texts


class Reader(ABC):
    """One data set on disk. Register a subclass with ``@register("reader", name)``."""

    format: ClassVar[str]  # the registered name
    layout: ClassVar[str]  # the files that identify the format, for error messages
    order: ClassVar[int] = 100  # readers are tried in rising order; built-in ones have 10 to 40

    path: Path
    robot: str = ""  # name of the robot, if recorded
    fps: float = 0.0  # rows per second; 0: not recorded, the mapping must set it
    fields: dict[str, Field]
    missing: list[str]  # files that the description lists and that are absent, as messages

    @classmethod
    @abstractmethod
    def detects(cls, path: Path) -> bool:
        """True if the file or folder has this format."""

    @abstractmethod
    def __init__(self, path: Path) -> None:
        """Read the description, not the episodes."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of episodes."""

    @abstractmethod
    def __getitem__(self, index: int) -> Recording: ...


def need(module: str) -> Any:
    """Import a reader's library.

    Raises:
        DataError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"reading this format needs {module.split('.')[0]}; install it: pip install 'vla[data]'"
        ) from error


def names_of(value: Any, dims: int, where: str) -> tuple[str, ...]:
    """Names of ``dims`` dimensions from a list, a nested list or a mapping with lists.

    Returns () for no names, or for a single name of several dimensions.

    Raises:
        DataError: the number of names differs from ``dims``, or a name occurs twice; the message
            begins with ``where``.
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
        raise DataError(
            f"{where}: {len(value)} names for {dims} numbers ({listed}); "
            "give every number its own name, or null"
        )
    return tuple(str(v) for v in value)


def ranges(numbers: Sequence[int]) -> str:
    """Compact text of integers, such as ``0-9, 11, 13-20``."""
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
