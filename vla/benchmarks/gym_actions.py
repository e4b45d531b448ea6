"""Actions of any gymnasium environment as vectors of numbers, and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np

from vla.types import MAX_BOUND, ActionSpace


class VectorActions:
    """The actions of an environment as vectors (A,), one dimension for each number or choice.

    A choice (``Discrete``, ``MultiDiscrete``, ``MultiBinary``) is a whole-number dimension: a
    token head has one token for each of its values. ``Dict`` and ``Tuple`` spaces are joined.

    Args:
        native: the environment's action space.
        rate_hz: control rate.
        clip: bound numbers as the environment declares; else they have no bounds.

    Attributes:
        space: names, bounds and kinds of the dimensions.

    Raises:
        ValueError: a space of another kind, or without any number.
    """

    def __init__(self, native: gym.Space[Any], rate_hz: float, clip: bool = True) -> None:
        self.native, self.leaves, self.clip = native, list(_leaves(native)), clip
        names: list[str] = []
        lows, highs, whole = [], [], []
        for name, leaf in self.leaves:
            low, high = self._bounds(leaf)
            stem = name or "action"
            one = bool(name) and low.size == 1
            names += [stem] if one else [f"{stem}_{k}" for k in range(low.size)]
            lows.append(low)
            highs.append(high)
            whole += [not _is_real(leaf)] * low.size
        if not names:
            raise ValueError(f"its action space is {native}, which has no number")
        low, high = np.concatenate(lows), np.concatenate(highs)
        high = np.where(low >= high, low + 1, high)  # one choice alone: ``decode`` clips to it
        binary = [
            n for n, w, a, b in zip(names, whole, low, high, strict=True) if w and (a, b) == (0, 1)
        ]
        integer = [n for n, w in zip(names, whole, strict=True) if w and n not in binary]
        lowest, highest = (tuple(float(v) for v in values) for values in (low, high))
        units, kinds = ("env",) * len(names), (tuple(binary), rate_hz, tuple(integer))
        self.space = ActionSpace(tuple(names), units, lowest, highest, *kinds)

    def _bounds(self, leaf: gym.Space[Any]) -> tuple[np.ndarray, np.ndarray]:
        low, high = _bounds(leaf)
        if _is_real(leaf) and not self.clip:
            return np.full_like(low, -np.inf), np.full_like(high, np.inf)
        return low, high

    def decode(self, action: np.ndarray) -> Any:
        """The environment's own action of a vector (A,); numbers are clipped to the bounds."""
        parts, at = {}, 0
        for name, leaf in self.leaves:
            low, high = self._bounds(leaf)
            values = np.clip(np.asarray(action, np.float64)[at : at + low.size], low, high)
            at += low.size
            parts[name] = _native(leaf, values)
        return _joined(self.native, parts, "")

    def encode(self, action: Any) -> np.ndarray:
        """The vector (A,) float32 that ``decode`` turns into what is executed for ``action``.

        Numbers are clipped to the bounds.

        Raises:
            ValueError: another number of numbers, or a choice that does not exist.
        """
        parts = []
        for name, leaf in self.leaves:
            low, high = self._bounds(leaf)
            values = np.asarray(_part(action, name), np.float64).reshape(-1)
            what = f"the action {name!r}" if name else "the action"
            if values.size != low.size:
                raise ValueError(f"{what} has {values.size} numbers, expected {low.size}")
            if _is_real(leaf):
                # Values that are not finite are kept: ``CheckedEnvironment`` refuses them.
                values = np.where(np.isfinite(values), np.clip(values, low, high), values)
            elif ((values % 1 != 0) | (values < low) | (values > high)).any():
                raise ValueError(
                    f"{what} is {_listed(values)}, expected whole numbers from {_listed(low)} to "
                    f"{_listed(high)}"
                )
            parts.append(values)
        return np.concatenate(parts).astype(np.float32)


def _listed(values: np.ndarray) -> str:
    return " ".join(f"{value:g}" for value in values)


def _leaves(space: gym.Space[Any], prefix: str = "") -> Iterator[tuple[str, gym.Space[Any]]]:
    """The spaces of numbers inside a space by their slash-separated names, in order."""
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        for name, part in _parts(space):
            yield from _leaves(part, f"{prefix}/{name}".strip("/"))
        return
    kinds = gym.spaces.Box | gym.spaces.Discrete | gym.spaces.MultiDiscrete | gym.spaces.MultiBinary
    if not isinstance(space, kinds):
        raise ValueError(
            f"its action space is {space}; supported are Box, Discrete, MultiDiscrete, "
            "MultiBinary, and Dict and Tuple of these; change it with wrappers=[module:Class]"
        )
    yield prefix, space


def _parts(space: gym.spaces.Dict | gym.spaces.Tuple) -> list[tuple[str, gym.Space[Any]]]:
    if isinstance(space, gym.spaces.Dict):
        return list(space.spaces.items())
    return [(str(k), part) for k, part in enumerate(space.spaces)]


def _is_real(space: gym.Space[Any]) -> bool:
    return isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.floating)


def _bounds(space: Any) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest values (A,) of a space of numbers; infinite beyond ``MAX_BOUND``."""
    if isinstance(space, gym.spaces.Box):
        low, high = space.low, space.high
    elif isinstance(space, gym.spaces.MultiBinary):
        low, high = np.zeros(space.shape), np.ones(space.shape)
    else:
        low = np.asarray(space.start)
        high = (
            low + np.asarray(space.n if isinstance(space, gym.spaces.Discrete) else space.nvec) - 1
        )
    low, high = (np.asarray(v, np.float64).reshape(-1) for v in (low, high))
    return np.where(low < -MAX_BOUND, -np.inf, low), np.where(high > MAX_BOUND, np.inf, high)


def _native(space: Any, values: np.ndarray) -> Any:
    if isinstance(space, gym.spaces.Discrete):
        return round(float(values[0]))
    if not _is_real(space):
        values = np.round(values)
    return values.reshape(space.shape).astype(space.dtype)


def _joined(space: gym.Space[Any], parts: dict[str, Any], name: str) -> Any:
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        inner = {k: _joined(part, parts, f"{name}/{k}".strip("/")) for k, part in _parts(space)}
        return inner if isinstance(space, gym.spaces.Dict) else tuple(inner.values())
    return parts[name]


def _part(action: Any, name: str) -> Any:
    for key in filter(None, name.split("/")):
        action = action[key] if isinstance(action, dict) else action[int(key)]
    return action
