"""The tabletop as a benchmark: five skills, and suites after RT-2's Tables 4 and 5."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from vla.benchmarks.base import Benchmark, Expert, Task
from vla.benchmarks.tabletop.env import MAX_STEPS, Tabletop
from vla.benchmarks.tabletop.expert import expert_command
from vla.benchmarks.tabletop.layouts import LAYOUTS, to_action, to_command
from vla.benchmarks.tabletop.scene import SceneConfig
from vla.benchmarks.tabletop.suites import SUITE_TASKS
from vla.benchmarks.tabletop.tasks import SKILLS
from vla.benchmarks.tabletop.world import Command
from vla.config import register


@register("benchmark", "tabletop")
class TabletopBenchmark(Benchmark):
    """Tasks are the skills (group "skills") and the tasks of the suites (a group each)."""

    name = "tabletop"
    metrics: tuple[str, ...] = ("failed", "correct_termination", "early_terminations", "clipped")

    def __init__(
        self,
        scene: SceneConfig | None = None,  # skills and items of the scenes; null: the defaults
        # Cameras: top, wrist. With a policy, the policy's cameras are used instead.
        cameras: tuple[str, ...] = ("top",),
        size: int = 128,  # side of the images, px, at least 16
        layout: str = "rt2",  # action layout: rt2 (8 dimensions) or rt1 (11 dimensions)
        max_steps: int = MAX_STEPS,  # control steps of an episode, at least 1
        # The arm reaches 12 cm around a base that moves; needs the layout rt1.
        mobile_base: bool = False,
        *,
        policy_cameras: tuple[str, ...] = (),  # the cameras that the policy uses
    ) -> None:
        self.scene, self.layout, self.max_steps = scene or SceneConfig(), layout, max_steps
        self._options: dict[str, Any] = {
            "scene": self.scene,
            "cameras": tuple(policy_cameras or cameras),
            "size": size,
            "layout": layout,
            "max_steps": max_steps,
            "mobile_base": mobile_base,
        }
        Tabletop(**self._options)  # raises for unknown cameras, layouts and sizes
        self.action_space = LAYOUTS[layout]
        if mobile_base:
            self.metrics = (*self.metrics, "base_steps")

    def tasks(self) -> list[Task]:
        """The skills, then the tasks of the suites. The instruction is drawn with the scene."""
        return [
            *(Task(skill, group="skills") for skill in SKILLS),
            *(Task(n, group=t.suite, column=t.column) for n, t in SUITE_TASKS.items()),
        ]

    def default_tasks(self) -> list[Task]:
        """The skills of the scene, which are those that a policy was trained on."""
        return [Task(skill, group="skills") for skill in self.scene.skills]

    def make_env(self, task: Task) -> gym.Env[Any, Any]:
        """The environment of one skill or suite task."""
        return Tabletop(**self._options, task=task.id)

    def hold_action(self, last: np.ndarray | None) -> np.ndarray:
        """No movement; the gripper stays as it is."""
        closed = 0.0 if last is None else to_command(self.layout, last).close
        return to_action(self.layout, Command(close=closed))

    def expert(self, task: Task) -> Expert:
        """The scripted expert. It reads the state of the simulator, not the images."""

        def act(env: gym.Env[Any, Any], observation: dict[str, Any]) -> np.ndarray:
            table: Any = env.unwrapped
            return to_action(self.layout, expert_command(table.world, table.task))

        return act
