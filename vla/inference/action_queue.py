"""Action chunks that are waiting to be executed: receding horizon or temporal ensembling."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
from scipy.special import softmax

from vla.policies.execution import Execution
from vla.types import ActionSpace


class ActionQueue:
    """Action chunks (H, A) of several episodes, by key.

    Args:
        space: the robot's action space.
        horizon: H.
        execution: how the chunks are executed. Temporal ensembling averages binary dimensions,
            too, and takes the nearer of their two values. Whole-number dimensions take the value
            with the largest weight.

    Raises:
        ConfigError: the execution does not fit chunks of this length.
    """

    def __init__(self, space: ActionSpace, horizon: int, execution: Execution) -> None:
        execution.check(horizon)
        self.execution_horizon = execution.steps_per_call(horizon)
        self.ensemble = execution.temporal_ensemble
        self.binary = np.array([name in space.binary for name in space.names])
        low, high = (np.where(self.binary, bound, 0.0) for bound in (space.low, space.high))
        self.low, self.high = low, high  # of the binary dimensions; others may be infinite
        self.integer = [k for k, name in enumerate(space.names) if name in space.integer]
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
        weights = softmax(-self.ensemble * np.arange(len(now)))  # the oldest chunk is first
        mean = weights @ now
        nearer = np.where(mean > (self.low + self.high) / 2, self.high, self.low)
        mean = np.where(self.binary, nearer, mean)
        for k in self.integer:  # the mean of two modes is another mode
            values, inverse = np.unique(now[:, k], return_inverse=True)
            mean[k] = values[np.bincount(inverse, weights).argmax()]
        return mean.astype(np.float32)
