"""Success and scores of any gymnasium environment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from vla.errors import ConfigError, EnvironmentFailed
from vla.utils.notes import note

Timing = Literal["last", "any"]
REWARD = "reward"
_WAYS = ("last", "max", "min", "sum", "mean")
_TAKEN = ("task", "seed", "success", "n", "low", "high", "steps")  # other columns of the results


@dataclass(frozen=True)
class Success:
    """When an episode has succeeded.

    Without key and thresholds ``info`` says it ("success" or "is_success"), else the sum of rewards
    at which gymnasium calls the environment solved.
    """

    key: str | None = None  # entry of ``info``
    reward: float | None = None  # smallest reward of a step
    total: float | None = None  # smallest sum of the rewards
    timing: Timing = "last"  # "any": the first successful step ends the episode


def parse_scores(scores: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Column -> (way, value), from texts such as "max coverage".

    Raises:
        ConfigError: a text of another form, or a column that the results have already.
    """
    parsed = {}
    for column, text in scores.items():
        if column in _TAKEN:
            raise ConfigError(
                f"benchmark.scores.{column}: the results have a column of this name; choose another"
            )
        way, _, value = text.partition(" ")
        if way not in _WAYS or not value.strip():
            raise ConfigError(
                f"benchmark.scores.{column}: expected one of {', '.join(_WAYS)} and 'reward' or "
                f"an entry of info, for example 'max reward'; got {text!r}"
            )
        parsed[column] = way, value.strip()
    return parsed


class OutcomeEnvironment(gym.Wrapper[Any, Any, Any, Any]):
    """Writes ``info["success"]`` and the scores of the episode so far into each step's ``info``.

    Raises:
        ConfigError: (by ``step``) ``info`` has no entry that the success or a score names, or it
            is no number.
        EnvironmentFailed: (by ``step``) such an entry is NaN.
    """

    def __init__(
        self, env: gym.Env[Any, Any], success: Success, scores: Mapping[str, tuple[str, str]]
    ) -> None:
        super().__init__(env)
        self.success, self.scores = success, dict(scores)
        self.id = env.spec.id if env.spec else type(env.unwrapped).__name__
        self.threshold = env.spec.reward_threshold if env.spec else None
        self._start()

    def _start(self) -> None:
        self.total, self.steps, self.known = 0.0, 0, dict[str, float]()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """As in gymnasium."""
        self._start()
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        """As in gymnasium."""
        given: Any
        observation, given, terminated, truncated, info = self.env.step(action)
        if np.ndim(given):
            raise EnvironmentFailed(f"the reward is {given!r}, expected one number")
        reward = float(given)
        self.total, self.steps = self.total + reward, self.steps + 1
        for column, (way, name) in self.scores.items():
            value = reward if name == REWARD else self._number(info, name)
            self.known[column] = self._updated(self.known.get(column), way, value)
        ended = terminated or truncated
        won = self._won(info, reward, ended)
        terminated = terminated or (won and self.success.timing == "any")
        return observation, reward, terminated, truncated, info | {"success": won} | self.known

    def _updated(self, known: float | None, way: str, value: float) -> float:
        if known is None or way == "last":
            return value
        changed = {
            "max": max(known, value),
            "min": min(known, value),
            "sum": known + value,
            "mean": known + (value - known) / self.steps,
        }
        return changed[way]

    def _won(self, info: Mapping[str, Any], reward: float, ended: bool) -> bool:
        rule = self.success
        checks = []
        if rule.key is not None:
            checks.append(self._number(info, rule.key) > 0)
        if rule.reward is not None:
            checks.append(reward >= rule.reward)
        if rule.total is not None:
            checks.append(self.total >= rule.total)
        if checks:
            return all(checks)
        for key in ("success", "is_success"):
            if key in info:
                return self._number(info, key) > 0
        if self.threshold is not None:
            note(f"{self.id}: success is its threshold, a summed reward of {self.threshold:g}")
            return self.total >= self.threshold
        if ended:
            known = ", ".join(map(str, info)) or "nothing"
            note(
                f"{self.id} reports neither info['success'] nor info['is_success'] ({known}); "
                "every episode counts as failed: set success=KEY, success_reward=NUMBER or "
                "success_return=NUMBER"
            )
        return False

    def _number(self, info: Mapping[str, Any], name: str) -> float:
        found: Any = info
        for key in name.split("/"):
            found = found.get(key) if isinstance(found, Mapping) else None
        try:
            number = float(found)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            known = ", ".join(map(str, info)) or "nothing"
            raise ConfigError(
                f"{self.id}: info[{name!r}] is no number ({found!r}); info has {known}; name "
                "another entry in success or scores, or 'reward'"
            ) from None
        if math.isnan(number):
            raise EnvironmentFailed(f"info[{name!r}] is nan, expected a number")
        return number
