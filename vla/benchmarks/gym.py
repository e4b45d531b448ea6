"""Any gymnasium environment that has or renders images, as a benchmark with one task."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from vla.benchmarks.base import Benchmark, Task
from vla.config import register
from vla.types import ActionSpace


@register("benchmark", "gym")
class GymBenchmark(Benchmark):
    """A gymnasium environment by its id. Actions are unnamed, with the bounds of its box."""

    name = "gym"

    def __init__(
        self,
        id: str,  # gymnasium id, e.g. "PushT-v0"; "module:id" imports the module first
        instruction: str = "",  # instruction of the task, if the observation has none
        # Further arguments of ``gymnasium.make``, e.g. render_mode and max_episode_steps.
        options: dict[str, Any] | None = None,
        *,
        policy_cameras: tuple[str, ...] = (),  # names of the images, in the order of discovery
    ) -> None:
        self.id, self.instruction, self.options = id, instruction, dict(options or {})
        self.cameras = policy_cameras
        env = self._make()
        self.action_space = _action_space(env)
        self.max_steps = getattr(env.spec, "max_episode_steps", None) or 0
        env.close()

    def _make(self) -> gym.Env[Any, Any]:
        return gym.make(self.id, disable_env_checker=True, **self.options)

    def tasks(self) -> list[Task]:
        """One task with the environment's id."""
        return [Task(self.id, self.instruction)]

    def make_env(self, task: Task) -> gym.Env[Any, Any]:
        """The environment with the observations of ``Benchmark``."""
        return ImageEnvironment(self._make(), self.cameras, task.instruction)


def _action_space(env: gym.Env[Any, Any]) -> ActionSpace:
    box = env.action_space
    if not isinstance(box, gym.spaces.Box) or len(box.shape) != 1:
        raise ValueError(f"{env}: its action space is {box}; only a Box of shape (A,) is supported")
    names = tuple(f"action_{k}" for k in range(box.shape[0]))
    rate = float(env.metadata.get("render_fps") or 5)
    low, high = (tuple(float(v) for v in bound) for bound in (box.low, box.high))
    return ActionSpace(names, ("env",) * len(names), low, high, rate_hz=rate)


def is_image(value: Any) -> bool:
    """True for an (H, W, 3) uint8 array."""
    return (
        isinstance(value, np.ndarray)
        and value.dtype == np.uint8
        and value.ndim == 3
        and value.shape[-1] == 3
    )


class ImageEnvironment(gym.Wrapper[dict[str, Any], np.ndarray, Any, np.ndarray]):
    """Converts observations to those of ``Benchmark``.

    Images are the observation itself or entries of a dictionary observation. If there are none,
    ``render()`` is used (``render_mode="rgb_array"``). The state is the entry "state" or
    "agent_pos". An observation with an "images" dictionary is kept.

    Args:
        cameras: names of the images in the order in which they are found; empty: their keys.
        instruction: used if the observation has none.

    Raises:
        ValueError: (by ``reset`` and ``step``) no image, or fewer images than cameras.
    """

    def __init__(
        self, env: gym.Env[Any, Any], cameras: tuple[str, ...], instruction: str = ""
    ) -> None:
        super().__init__(env)
        self.cameras, self.instruction = cameras, instruction

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As in gymnasium."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._convert(observation), info

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """As in gymnasium; ``info["success"]`` is taken from "is_success" if it is missing."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        info = {"success": bool(info.get("is_success", False))} | info
        return self._convert(observation), float(reward), terminated, truncated, info

    def _convert(self, observation: Any) -> dict[str, Any]:
        if isinstance(observation, dict) and isinstance(observation.get("images"), dict):
            return {"instruction": self.instruction} | observation
        fields = observation if isinstance(observation, dict) else {"image": observation}
        images = {k: v for k, v in fields.items() if is_image(v)}
        if not images and self.env.render_mode == "rgb_array":
            rendered = self.env.render()
            images = {"image": rendered} if is_image(rendered) else {}
        if not images or len(images) < len(self.cameras):
            raise ValueError(
                f"{self.env}: found {len(images)} images (H, W, 3) uint8 in its observation; "
                f"the policy needs {', '.join(self.cameras) or 'at least one'}. Make the "
                "environment with render_mode=rgb_array, or wrap it to add images"
            )
        if self.cameras:
            images = dict(zip(self.cameras, images.values(), strict=False))
        converted = {
            "images": images,
            "instruction": str(fields.get("instruction", self.instruction)),
        }
        state = fields.get("state", fields.get("agent_pos"))
        return converted if state is None else converted | {"state": np.asarray(state, np.float32)}
