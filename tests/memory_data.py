"""A data source of small episodes in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vla.data.config import DataConfig, WindowConfig
from vla.data.images import encode_image
from vla.data.pipeline import BatchStream
from vla.data.source import Source
from vla.types import ActionSpace, Episode

SPACE = ActionSpace(("a", "b"), ("m", "m"), (-1.0, -1.0), (1.0, 1.0))


def make_episode(index: int = 0, steps: int = 5) -> Episode:
    """An episode whose image brightness and actions depend on the index and the step."""
    images = [
        encode_image(np.full((16, 16, 3), min(255, 40 * index + 8 * t), np.uint8))
        for t in range(steps)
    ]
    actions = (
        np.stack([np.full(steps, index, np.float32), np.arange(steps, dtype=np.float32)], 1) / 10
    )
    return Episode(f"{index:07d}", f"do thing {index}", {"top": images}, actions, state=actions * 2)


class MemorySource(Source):
    """The given episodes."""

    action_space = SPACE
    image_size = (16, 16)

    def __init__(self, episodes: list[Episode]) -> None:
        self.episodes = episodes

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, index: int) -> Episode:
        return self.episodes[index]

    def describe(self) -> dict[str, Any]:
        """The source is identified by its name alone."""
        return {"name": "memory"}


def stream(path: Path | str, **kw: Any) -> BatchStream:
    """A stream of one packed data set; training batches of 4 by default."""
    options: dict[str, Any] = {"batch_size": 4, "train": True} | kw
    window = options.pop("window", WindowConfig())
    return BatchStream(DataConfig({"d": str(path)}, {"d": 1.0}, window, shuffle=20), **options)
