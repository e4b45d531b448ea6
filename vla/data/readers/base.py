"""The interface of a reader: recordings as they are on disk, before any mapping."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from vla.errors import DataError

# Rows in rising order -> their images, one at a time: (H, W, 3) uint8, or (H, W) distances. Use
# ``vla.data.readers.pixels.decode_pixels``.
Frames = Callable[[Sequence[int]], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Field:
    """One recorded column."""

    kind: Literal["image", "numbers", "text"]
    dims: int = 0  # numbers per row
    names: tuple[str, ...] = ()  # names of the dimensions, if the format has them
    depth: bool = False  # an image of distances; left out unless ``mapping.cameras`` names it


_T = TypeVar("_T")


class OnDemand(Mapping[str, _T]):
    """Columns of an episode; each is read at its first use.

    A damaged column therefore matters only if the mapping uses it.
    """

    def __init__(self, read: Mapping[str, Callable[[], _T]]) -> None:
        self._read, self._values = dict(read), dict[str, _T]()

    def __getitem__(self, key: str) -> _T:
        if key not in self._values:
            self._values[key] = self._read[key]()
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)


@dataclass
class Recording:
    """One episode as recorded; T rows."""

    key: str  # unique in the data set
    steps: int  # T
    fps: float  # rows per second; 0: unknown
    instruction: str  # empty if the format has none
    numbers: Mapping[str, np.ndarray]  # field -> (T, dims); see ``OnDemand``
    frames: dict[str, Frames]  # image field -> its images
    texts: Mapping[str, list[str]] = field(default_factory=dict)  # text field -> T texts
    # T texts if the instruction changes within the episode; empty: ``instruction`` in every row.
    instructions: list[str] = field(default_factory=list)
    split: str = ""  # recorded split: "train", "val"; empty: not recorded


class Reader(ABC):
    """One data set on disk. Register a subclass with ``@register("reader", name)``."""

    format: ClassVar[str]  # the registered name
    layout: ClassVar[str]  # the files that identify the format, for error messages
    order: ClassVar[int] = 100  # readers are tried in rising order; built-in ones have 10 to 40

    path: Path
    robot: str = ""  # name of the robot, if recorded
    fps: float = 0.0  # rows per second; 0: not recorded, the mapping must set it
    fields: dict[str, Field]
    # Fields that cannot be read -> why, as a whole message; an error only if the mapping uses them.
    unusable: Mapping[str, str] = MappingProxyType({})
    # Fields of action and state, in order, if the mapping names none. Empty: chosen by name.
    default_action: Sequence[str] = ()
    default_state: Sequence[str] = ()
    # Episodes that cannot be used, known without reading them -> why.
    bad: Mapping[int, str] = MappingProxyType({})
    missing: list[str]  # files that the description lists and that are absent, as messages
    # What is left out or assumed, one message each; `vla pack` and `vla doctor` print them.
    notes: Sequence[str] = ()

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
    def __getitem__(self, index: int) -> Recording:
        """One episode.

        Raises:
            DataError, BadSample: it is damaged; the message has file, episode and row.
        """

    def location(self, index: int) -> str:
        """The file or folder of an episode, for messages about damage."""
        return str(self.path)

    def choose_rows(self, rows_per_second: float, used: Collection[str]) -> None:  # noqa: B027
        """Set the rate of the rows, in formats that record messages at times instead of rows.

        Every row then has a value of every used field. Other formats ignore it.
        """

    def leave_out_incomplete(self, used: Collection[str]) -> None:  # noqa: B027
        """Leave out episodes that lack files of the used fields (``--skip-missing``)."""


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
