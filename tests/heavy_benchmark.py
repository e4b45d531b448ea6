"""A benchmark whose environments run in processes: a counter with images that are drawn on demand.

It stands in a module of its own, because processes import it by name.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from vla.benchmarks.base import Benchmark, Expert, Published, Task
from vla.benchmarks.lazy_images import LazyImages
from vla.types import ActionSpace

STEPS = 6  # of an episode


class Heavy(Benchmark):
    """An episode succeeds after ``STEPS`` steps with an even seed; task "crash" ends its process.

    Every drawn image appends the step to the file ``drawn``.
    """

    name, is_heavy, max_steps, episodes = "heavy", True, STEPS, 2
    action_space = ActionSpace(("x",), ("m",), (-1.0,), (1.0,))
    averages = {"mean of groups": {"left": 0.5, "right": 0.5}}

    def __init__(self, drawn: Path | None = None) -> None:
        self.drawn = drawn

    def tasks(self) -> list[Task]:
        return [Task("a", "go left", "left"), Task("b", "go", "right"), Task("c", "go", "right")]

    def make_env(self, task: Task) -> gym.Env[Any, Any]:
        return HeavyEnv(task, self.drawn)

    def expert(self, task: Task) -> Expert:
        return lambda env, observation: np.ones(1, np.float32)

    def published(self) -> list[Published]:
        return [Published("theirs", {"left": 40.0, "right": 20.0, "mean of groups": 30.0}, "paper")]


class HeavyEnv(gym.Env[Any, Any]):
    def __init__(self, task: Task, drawn: Path | None) -> None:
        self.task, self.drawn = task, drawn
        self.images = LazyImages({})

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.number, self.steps = seed or 0, 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        if self.task.id == "crash":
            os._exit(3)
        self.steps += 1
        won = self.steps == STEPS and self.number % 2 == 0
        return self._observe(), 0.0, won, self.steps == STEPS, {"success": won}

    def _observe(self) -> dict[str, Any]:
        self.images.expire()
        self.images = LazyImages({"top": self._draw})
        return {"images": self.images, "instruction": self.task.instruction}

    def _draw(self) -> np.ndarray:
        if self.drawn is not None:
            with self.drawn.open("a") as file:
                file.write(f"{self.steps}\n")
        return np.full((8, 8, 3), self.steps, np.uint8)
