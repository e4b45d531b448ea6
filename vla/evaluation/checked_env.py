"""Environments whose failures name benchmark, task, seed and step."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np

from vla.benchmarks.base import Benchmark, Expert, Task
from vla.errors import ConfigError, DataError, EnvironmentFailed


class CheckedEnvironment(gym.Wrapper[Any, Any, Any, Any]):
    """The environment of a task. Whatever it or an expert raises becomes ``EnvironmentFailed``.

    So does a reward, state, success or metric that is not finite.

    Raises:
        ConfigError: the environment cannot be made, or has not what the options name.
        EnvironmentFailed: (by ``reset``, ``step`` and ``expert_action``) see above.
    """

    def __init__(self, benchmark: Benchmark, task: Task) -> None:
        self.benchmark, self.task = benchmark, task
        self.seed: int | None = None
        self.steps = 0
        with self._explained():
            super().__init__(benchmark.make_env(task))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """As in gymnasium."""
        self.seed, self.steps = seed, 0
        with self._explained():
            observation, info = self.env.reset(seed=seed, options=options)
            _check_state(observation)
        return observation, info

    def step(self, action: Any) -> Any:
        """As in gymnasium."""
        with self._explained():
            found = self.env.step(action)
            observation, reward, _, _, info = found
            _check_state(observation)
            numbers = {"the reward": reward}
            for name in ("success", *self.benchmark.metrics):
                if name in info:
                    numbers[f"info[{name!r}]"] = info[name]
            for name, value in numbers.items():
                if not np.isfinite(float(value)):
                    raise EnvironmentFailed(f"{name} is {float(value)}, expected a finite number")
        self.steps += 1
        return found

    def expert_action(self, expert: Expert, observation: Mapping[str, Any]) -> np.ndarray:
        """The action (A,) float32 of an expert in the present state."""
        space = self.benchmark.action_space
        with self._explained("the expert"):
            action = np.asarray(expert(self.env, dict(observation)), np.float32)
            if action.shape != (space.dim,) or not np.isfinite(action).all():
                raise EnvironmentFailed(
                    f"the expert's action is {np.array2string(action, threshold=8)}, expected "
                    f"{space.dim} finite numbers ({', '.join(space.names)})"
                )
        return action

    @contextmanager
    def _explained(self, what: str = "the environment") -> Iterator[None]:
        try:
            yield
        except (ConfigError, DataError):
            raise
        except EnvironmentFailed as error:
            raise EnvironmentFailed(f"{self._place()}: {error}") from error
        except Exception as error:  # environments raise any exception
            place = traceback.extract_tb(error.__traceback__)[-1]
            reason = str(error).strip().splitlines() or [""]
            raise EnvironmentFailed(
                f"{self._place()}: {what} raised {type(error).__name__}: {reason[0]} "
                f"({place.filename}, line {place.lineno})"
            ) from error

    def _place(self) -> str:
        seed = "" if self.seed is None else f", seed {self.seed}, step {self.steps}"
        return f"{self.benchmark.name}: task {self.task.id!r}{seed}"


def _check_state(observation: Mapping[str, Any]) -> None:
    state = observation.get("state")
    if state is not None and not np.isfinite(state).all():
        wrong = int(np.flatnonzero(~np.isfinite(state))[0])
        raise EnvironmentFailed(f"state[{wrong}] is {state[wrong]}, expected a finite number")
