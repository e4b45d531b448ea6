"""The interface of a data source: everything that packing needs to know about it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from vla.types import ActionSpace, Episode, ImageFit, WebSample


class Source(ABC):
    """A sequence of episodes or web samples. Sample ``i`` depends on the source and ``i`` alone.

    The manifest of the packed data gets these attributes, see ``vla.data.manifest.Manifest``.
    """

    action_space: ActionSpace | None = None  # None: web data
    image_size: tuple[int, int] = (0, 0)  # (height, width) in px; (0, 0): mixed or unknown
    state_names: tuple[str, ...] = ()  # names of the state dimensions; empty: unknown
    delta: tuple[str, ...] = ()  # action dimensions given as differences to the state
    # How camera images were brought to ``image_size``; policies do the same at run time.
    image_fit: ImageFit = "stretch"
    notes: Sequence[str] = ()  # what is left out or assumed, one message each
    # Samples that cannot be used, known without reading them -> why.
    bad: Mapping[int, str] = MappingProxyType({})

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Episode | WebSample: ...

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What identifies the source; a pack is only resumed if this is unchanged."""

    def benchmark(self) -> dict[str, Any]:
        """Configuration of the benchmark that the episodes were recorded in; empty if none."""
        return {}

    def location(self, index: int) -> str:
        """The file of a sample, for messages about damage; empty: unknown."""
        return ""

    def files(self) -> dict[str, str]:
        """File -> state of its content, see ``vla.data.fingerprint``; empty: not from files."""
        return {}
