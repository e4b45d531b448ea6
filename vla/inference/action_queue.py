"""Action chunks that are waiting to be executed: receding horizon or temporal ensembling."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from vla.types import ActionSpace


class ActionQueue:
    """Action chunks (H, A) of several episodes, by key.

    Args:
        space: the robot's action space.
        execution_horizon: steps of a chunk that are executed before a new chunk is needed.
        ensemble: temporal ensembling (ACT, arXiv 2304.13705). A new chunk is needed at every step,
            and the predictions of all chunks for a step are averaged with weights
            exp(-ensemble x k), k = 0 for the oldest chunk; 0 weights them equally. Binary
            dimensions are averaged and rounded. None turns it off.
    """

    def __init__(
        self, space: ActionSpace, execution_horizon: int, ensemble: float | None = None
    ) -> None:
        self.execution_horizon, self.ensemble = execution_horizon, ensemble
        self.binary = np.array([name in space.binary for name in space.names])
        self.chunks: dict[Hashable, list[np.ndarray]] = {}

    def reset(self, key: Hashable) -> None:
        """Drop an episode's chunks."""
        self.chunks.pop(key, None)

    def needs_chunk(self, key: Hashable) -> bool:
        """True if the policy must predict before the next action."""
        return self.ensemble is not None or not self.chunks.get(key)

    def push(self, key: Hashable, chunk: np.ndarray) -> None:
        """Add a chunk (H, A) whose first action belongs to the present step."""
        if self.ensemble is None:
            self.chunks[key] = [chunk[: self.execution_horizon]]
        else:
            self.chunks.setdefault(key, []).append(chunk)

    def pop(self, key: Hashable) -> np.ndarray:
        """The action (A,) of the present step; all chunks advance by one step."""
        chunks = self.chunks[key]
        now = np.stack([c[0] for c in chunks])
        self.chunks[key] = [c[1:] for c in chunks if len(c) > 1]
        if self.ensemble is None:
            return now[0]
        weights = np.exp(-self.ensemble * np.arange(len(now)))
        mean = (weights[:, None] * now).sum(0) / weights.sum()
        return np.where(self.binary, np.round(mean), mean).astype(np.float32)
