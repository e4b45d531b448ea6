"""Meta-World MT50 as a benchmark, by the protocol of SmolVLA's table (arXiv 2506.01844)."""

from __future__ import annotations

import csv
import functools
import warnings
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from vla.benchmarks.base import Benchmark, Expert, Published, Task
from vla.config import register
from vla.errors import ConfigError
from vla.types import ActionSpace

MAX_STEPS = 500
_FOLDER = Path(__file__).parent


@functools.cache
def _tasks() -> tuple[Task, ...]:
    with (_FOLDER / "tasks.csv").open(encoding="utf-8", newline="") as file:
        return tuple(Task(r["task"], r["instruction"], r["tier"]) for r in csv.DictReader(file))


def _weights(by_task: bool) -> dict[str, float]:
    """Tier -> weight in the average: its share of the tasks, or the same for all tiers."""
    tiers = [task.group for task in _tasks()]
    names = list(dict.fromkeys(tiers))
    return {n: tiers.count(n) / len(tiers) if by_task else 1 / len(names) for n in names}


@register("benchmark", "metaworld/mt50")
class MetaWorldMT50(Benchmark):
    """50 tasks in four tiers (groups). The first success at any step ends an episode.

    Instructions are those of LeRobot, except that push-back has a text of its own
    (``instructions``).

    Raises:
        ConfigError: an option is out of range, or the policy uses several cameras.
    """

    name = "metaworld/mt50"
    action_space = ActionSpace(
        ("x", "y", "z", "gripper"), ("cm", "cm", "cm", ""), (-1.0,) * 4, (1.0,) * 4, rate_hz=80.0
    )

    episodes, is_heavy = 20, True
    averages = {
        "published average": _weights(by_task=False),
        "task-weighted average": _weights(by_task=True),
    }

    def __init__(
        self,
        size: int = 128,  # side of the image, px, 16 to 1024
        # fast: no shadows, reflections and multisampling (10 times as fast); published: as shipped
        images: Literal["fast", "published"] = "fast",
        max_steps: int = MAX_STEPS,  # control steps of an episode, 1 to 500
        # corrected: push-back has its own text; published: that of push, as in the public data set
        instructions: Literal["corrected", "published"] = "corrected",
        *,
        policy_cameras: tuple[str, ...] = (),  # the policy's camera, which names the image
    ) -> None:
        if not 16 <= size <= 1024:
            raise ConfigError(f"benchmark.size: expected 16 to 1024, got {size}")
        if not 1 <= max_steps <= MAX_STEPS:
            raise ConfigError(f"benchmark.max_steps: expected 1 to {MAX_STEPS}, got {max_steps}")
        if len(policy_cameras) > 1:
            raise ConfigError(
                f"{self.name} has one camera; the policy uses {', '.join(policy_cameras)}"
            )
        self.size, self.images, self.max_steps = size, images, max_steps
        self.camera = policy_cameras[0] if policy_cameras else "corner2"
        self.instructions = instructions

    def tasks(self) -> list[Task]:
        """The 50 tasks, by tier."""
        if self.instructions == "corrected":
            return list(_tasks())
        text = next(t.instruction for t in _tasks() if t.id == "push")
        return [replace(t, instruction=text) if t.id == "push-back" else t for t in _tasks()]

    def make_env(self, task: Task) -> gym.Env[Any, Any]:
        """The environment of one task."""
        from vla.benchmarks.metaworld.env import MetaWorldEnv

        fast = self.images == "fast"
        return MetaWorldEnv(task.id, task.instruction, self.camera, self.size, fast, self.max_steps)

    def hold_action(self, last: np.ndarray | None) -> np.ndarray:
        """No movement; the gripper keeps its effort."""
        effort = 0.0 if last is None else float(last[3])
        return np.array([0, 0, 0, effort], np.float32)

    def expert(self, task: Task) -> Expert:
        """Meta-World's scripted policy, which reads the positions of objects and goal."""
        from vla.benchmarks.metaworld.env import expert

        scripted = expert(task.id)

        def act(env: gym.Env[Any, Any], observation: dict[str, Any]) -> np.ndarray:
            simulator: Any = env.unwrapped
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # one for each action that is clipped
                action = np.asarray(scripted.get_action(simulator.full_state), np.float32)
            return np.clip(action, -1.0, 1.0)

        return act

    def published(self) -> list[Published]:
        """Rows of SmolVLA's table and later ones. The averages are computed from the tiers."""
        with (_FOLDER / "published.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        found = []
        for row in rows:
            shares = {tier: float(row[tier]) for tier in _weights(by_task=True)}
            for average, weights in self.averages.items():
                shares[average] = sum(w * shares[tier] for tier, w in weights.items())
            found.append(Published(row["model"], shares, row["source"]))
        return found

    def facts(self) -> dict[str, str]:
        """Image settings and versions of the simulator."""
        return {
            "images": f"{self.images}, {self.size} px",
            "metaworld": version("metaworld"),
            "mujoco": version("mujoco"),
        }
