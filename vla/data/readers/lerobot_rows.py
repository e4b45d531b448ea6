"""The rows of one LeRobot episode."""

from __future__ import annotations

from typing import Any

import numpy as np

from vla.data.readers.files import read_schema, read_table
from vla.data.readers.lerobot_columns import numbers_of
from vla.data.readers.lerobot_index import EpisodeFiles
from vla.errors import DataError


class Rows:
    """The columns of one episode, in the order of its frames; each is read when it is used."""

    def __init__(self, episode: EpisodeFiles, version: int) -> None:
        self.episode = episode
        self.where = f"{episode.data}: episode {episode.index}"
        self.names = list(read_schema(episode.data).names)
        if not self.names:
            raise DataError(f"{episode.data}: a table without columns; download it again")
        self.filters: Any = None
        if version == 3:  # several episodes share a table
            if "episode_index" not in self.names:
                raise DataError(f"{episode.data}: no column episode_index; download it again")
            self.filters = [("episode_index", "==", episode.index)]
        self.order: np.ndarray | None = None
        first = "frame_index" if "frame_index" in self.names else self.names[0]
        column = self[first]
        self.count = len(column)
        if episode.length is not None and self.count != episode.length:
            raise DataError(
                f"{episode.data}: episode {episode.index} has {self.count} rows, meta/ says "
                f"{episode.length}; download it again, or skip bad episodes with --skip-bad"
            )
        if first == "frame_index":
            numbers = numbers_of(column, 1, f"{self.where}: frame_index")[:, 0]
            order = np.argsort(numbers, kind="stable")
            self.order = None if (np.diff(numbers) >= 0).all() else order

    def __getitem__(self, key: str) -> Any:
        if key not in self.names:
            raise DataError(
                f"{self.episode.data}: no column {key!r}, which meta/info.json declares; "
                f"it has {', '.join(self.names)}"
            )
        column = read_table(self.episode.data, [key], self.filters).column(0).combine_chunks()
        return column if self.order is None else column.take(self.order)
