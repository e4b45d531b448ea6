"""Action chunks that are waiting to be executed: receding horizon or temporal ensembling."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from vla.policies.execution import Execution
from vla.types import ActionSpace, Leftover


@dataclass
class _Chunk:
    """The rest of one chunk: actions to execute (N, A), and the predicted ones after them."""

    rest: np.ndarray
    later: np.ndarray


class ActionQueue:
    """Action chunks (H, A) of several episodes or clients, by key.

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
        self.ensemble, self.drops = execution.temporal_ensemble, execution.mode == "delay_aware"
        self.binary = np.array([name in space.binary for name in space.names])
        low, high = (np.where(self.binary, bound, 0.0) for bound in (space.low, space.high))
        self.low, self.high = low, high  # of the binary dimensions; others may be infinite
        self.integer = [k for k, name in enumerate(space.names) if name in space.integer]
        self._ensembles: dict[Hashable, list[np.ndarray]] = {}
        self._unread: set[Hashable] = set()  # ensembles with a prediction for the present step
        self._chunks: dict[Hashable, _Chunk] = {}

    def reset(self, key: Hashable) -> None:
        """Drop an episode's chunks."""
        self._ensembles.pop(key, None)
        self._unread.discard(key)
        self._chunks.pop(key, None)

    def left(self, key: Hashable) -> int:
        """Actions of ``key`` that can be executed before the next chunk."""
        if self.ensemble is not None:
            return int(key in self._unread)
        return len(self._chunks[key].rest) if key in self._chunks else 0

    def needs_chunk(self, key: Hashable, delay: int = 0) -> bool:
        """True if a prediction that takes ``delay`` control steps must start now."""
        return self.left(key) <= delay

    def leftover(self, key: Hashable, frozen: int) -> Leftover | None:
        """The last ``frozen`` actions to execute, and the predicted ones after them.

        A new chunk begins at the first of them. None: nothing is executed while it is predicted.
        """
        chunk = self._chunks.get(key)
        frozen = min(frozen, self.left(key))
        if chunk is None or frozen < 1:
            return None
        return Leftover(np.concatenate([chunk.rest[-frozen:], chunk.later]), frozen)

    def push(self, key: Hashable, chunk: np.ndarray, executed: int = 0) -> None:
        """Add a chunk (H, A), which replaces the rest of the one before.

        Args:
            executed: actions that were executed since the observation of the chunk. The mode
                delay_aware drops as many.
        """
        if self.ensemble is not None:
            self._ensembles.setdefault(key, []).append(chunk)
            self._unread.add(key)
            return
        start = executed if self.drops else 0
        end = start + self.execution_horizon
        self._chunks[key] = _Chunk(chunk[start:end], chunk[end:])

    def rest(self, key: Hashable) -> np.ndarray:
        """All actions (N, A) to execute before the next chunk, without ensembling."""
        return self._chunks[key].rest

    def pop(self, key: Hashable) -> np.ndarray:
        """The action (A,) of the present step; all chunks advance by one step."""
        if self.ensemble is None:
            queued = self._chunks[key]
            action, queued.rest = queued.rest[0], queued.rest[1:]
            return action
        self._unread.discard(key)
        chunks = self._ensembles[key]
        now = np.stack([c[0] for c in chunks])
        self._ensembles[key] = [c[1:] for c in chunks if len(c) > 1]
        weights = softmax(-self.ensemble * np.arange(len(now)))  # the oldest chunk is first
        mean = weights @ now
        nearer = np.where(mean > (self.low + self.high) / 2, self.high, self.low)
        mean = np.where(self.binary, nearer, mean)
        for k in self.integer:  # the mean of two modes is another mode
            values, inverse = np.unique(now[:, k], return_inverse=True)
            mean[k] = values[np.bincount(inverse, weights).argmax()]
        return mean.astype(np.float32)
