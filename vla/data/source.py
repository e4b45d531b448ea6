"""The interface of a data source: everything that packing needs to know about it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from vla.types import ActionSpace, Episode, WebSample


class Source(ABC):
    """A sequence of episodes or web samples. Sample ``i`` depends on the source and ``i`` alone.

    The manifest of the packed data gets these attributes, see ``vla.data.manifest.Manifest``.
    """

    action_space: ActionSpace | None = None  # None: web data
    image_size: tuple[int, int] = (0, 0)  # (height, width) in px; (0, 0): mixed or unknown
    state_names: tuple[str, ...] = ()  # names of the state dimensions; empty: unknown
    delta: tuple[str, ...] = ()  # action dimensions given as differences to the state

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
