"""Any gymnasium environment that has or renders images, as a benchmark with one task."""

from __future__ import annotations

import difflib
from typing import Any

import gymnasium as gym

from vla.benchmarks.base import Benchmark, Task
from vla.benchmarks.image_env import ImageEnvironment
from vla.config import register
from vla.errors import ConfigError
from vla.types import ActionSpace

MAX_STEPS = 1000  # of an episode, if the environment has no limit


@register("benchmark", "gym")
class GymBenchmark(Benchmark):
    """A gymnasium environment by its id. Actions are unnamed, with the bounds of its box.

    Raises:
        ConfigError: an unknown id or camera, an environment that cannot be made, or one whose
            actions are not one vector.
    """

    name = "gym"

    def __init__(
        self,
        id: str,  # gymnasium id, e.g. "PushT-v0"; "module:id" imports the module first
        instruction: str = "",  # instruction of the task, if the observation has none
        # Camera of the policy -> name of the image in the observation, where the two differ.
        cameras: dict[str, str] | None = None,
        # Fields of the observation that form the state, in order; null: "state" or "agent_pos".
        state: list[str] | None = None,
        # Further arguments of ``gymnasium.make``, e.g. render_mode and max_episode_steps.
        options: dict[str, Any] | None = None,
        *,
        policy_cameras: tuple[str, ...] = (),
    ) -> None:
        self.id, self.instruction, self.options = id, instruction, dict(options or {})
        self.cameras, self.names, self.state = policy_cameras, dict(cameras or {}), state or []
        for name in self.names:
            if policy_cameras and name not in policy_cameras:
                raise ConfigError(
                    f"benchmark.cameras.{name}: the policy has no such camera; "
                    f"choices: {', '.join(policy_cameras)}"
                )
        env = self._make()
        if getattr(env.spec, "max_episode_steps", None) is None:
            self.options["max_episode_steps"] = MAX_STEPS
            env.close()
            env = self._make()
        self.action_space = _action_space(id, env)
        self.max_steps = getattr(env.spec, "max_episode_steps", None) or MAX_STEPS
        env.close()

    def _make(self) -> gym.Env[Any, Any]:
        where = f"benchmark.id={self.id!r}"
        try:
            return gym.make(self.id, disable_env_checker=True, **self.options)
        except ModuleNotFoundError as error:
            module = self.id.partition(":")[0]
            missing = getattr(error.__cause__, "name", error.name)  # gymnasium drops the name
            if missing != module.split(".")[0]:  # a package that the module needs
                raise error.__cause__ or error from None
            raise ConfigError(
                f"{where}: cannot import the module {module}; install its package, "
                "or run from the folder that contains it"
            ) from error
        except gym.error.UnregisteredEnv as error:
            known = [name for name in gym.registry if "/" in name or "-v" in name]
            close = difflib.get_close_matches(self.id.rpartition(":")[2], known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ConfigError(
                f"{where}: no such environment; {hint}An environment of another package needs its "
                "module: module:id"
            ) from error
        except Exception as error:  # constructors of environments raise any exception
            reason = str(error).strip().splitlines() or [""]
            raise ConfigError(
                f"{where}: the environment cannot be made with options {self.options} "
                f"({type(error).__name__}: {reason[0]})"
            ) from error

    def tasks(self) -> list[Task]:
        """One task with the environment's id."""
        return [Task(self.id, self.instruction)]

    def make_env(self, task: Task) -> gym.Env[Any, Any]:
        """The environment with the observations of ``Benchmark``."""
        return ImageEnvironment(
            self._make(), self.cameras, task.instruction, self.names, self.state
        )


def _action_space(id: str, env: gym.Env[Any, Any]) -> ActionSpace:
    box = env.action_space
    if not isinstance(box, gym.spaces.Box) or len(box.shape) != 1:
        raise ConfigError(
            f"benchmark.id={id!r}: its action space is {box}; only a Box of shape (A,) is supported"
        )
    names = tuple(f"action_{k}" for k in range(box.shape[0]))
    rate = float(env.metadata.get("render_fps") or 5)
    low, high = (tuple(float(v) for v in bound) for bound in (box.low, box.high))
    return ActionSpace(names, ("env",) * len(names), low, high, rate_hz=rate)
