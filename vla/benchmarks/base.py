"""The interface of a benchmark: everything that the rest of the package needs from a simulator.

A benchmark is a class with ``@register("benchmark", name)``. Evaluation, recording of
demonstrations, replay, rollout videos during training, studies and sweeps then work with it.
``vla/README.md`` ("Add a benchmark") has a complete example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from vla.config.registry import nearest
from vla.errors import DataError
from vla.types import ActionSpace

SEED = 1_000_003  # first seed of evaluation; demonstrations are recorded with other seeds
# (environment, observation) -> action (A,) in robot units
Expert = Callable[[gym.Env[Any, Any], dict[str, Any]], np.ndarray]


@dataclass(frozen=True)
class Task:
    """One task of a benchmark."""

    id: str  # unique within the benchmark
    instruction: str = ""  # empty if the environment draws one per episode
    group: str = ""  # tasks with a published average, e.g. "easy"; empty: none
    column: str = ""  # column of the published table; empty: a column for this task alone


@dataclass
class EpisodeResult:
    """Outcome of one evaluation episode. Task and seed identify it in paired comparisons."""

    task: str  # task id
    seed: int
    instruction: str
    success: bool
    steps: int  # control steps
    metrics: dict[str, float] = field(default_factory=dict)  # see ``Benchmark.metrics``
    # Plan of every step (empty text: the policy acted at once); no texts: no step had a plan.
    plans: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Published:
    """One published row of results."""

    model: str
    shares: dict[str, float]  # group or average -> success in %
    source: str  # where it is from, and differences of protocol


@dataclass(frozen=True)
class Check:
    """One convention of a benchmark, measured in its simulator."""

    name: str
    expected: str  # what policies and data sets of this benchmark rely on
    measured: str
    passed: bool


class Benchmark(ABC):
    """A simulator with tasks.

    Environments have the observations ``{"images": {camera: (H, W, 3) uint8}, "instruction":
    str}``, and ``"state": (P,) float32`` if the robot measures one. The images may be a mapping
    that renders an image when it is read (``vla.benchmarks.lazy_images``). Actions are (A,) in
    robot units. ``info["success"]`` of an episode's last step is its result. A benchmark in which
    any step may succeed ends the episode then, or keeps the value. ``info["plan"]``, if there is
    one, becomes the plan of recorded demonstrations; policies do not see it.

    ``reset(seed=...)`` alone determines an episode. Evaluation uses consecutive seeds, so a
    benchmark with N fixed initial states takes number ``seed % N``.

    A constructor with the keyword-only parameter ``policy_cameras`` gets the names of the cameras
    that the policy uses; it is empty if there is no policy.
    """

    name: str  # the registered name
    action_space: ActionSpace  # names, units, bounds and rate of the actions
    max_steps: int  # largest number of control steps of an episode; environments truncate it
    metrics: tuple[str, ...] = ()  # entries of the last ``info`` that results have, as numbers
    episodes: int = 250  # of each task in ``vla eval``, by default
    # Environments need much memory: ``vla eval`` runs each in a process of its own, few at a time.
    is_heavy: bool = False
    averages: Mapping[str, Mapping[str, float]] = {}  # published average -> group -> weight

    @abstractmethod
    def tasks(self) -> list[Task]:
        """All tasks, in the order of the published table."""

    @abstractmethod
    def make_env(self, task: Task) -> gym.Env[Any, Any]:
        """A new environment of one task."""

    def facts(self) -> dict[str, str]:
        """What results must name, for example image settings and versions of the simulator."""
        return {}

    def published(self) -> list[Published]:
        """Published results, which ``vla eval`` prints beside its own."""
        return []

    def default_tasks(self) -> list[Task]:
        """The tasks that are evaluated if none are named."""
        return self.tasks()

    def expert(self, task: Task) -> Expert | None:
        """A new scripted expert for one episode of the task; None if there is none."""
        return None

    def required_expert(self, task: Task) -> Expert:
        """``expert``.

        Raises:
            DataError: there is none.
        """
        found = self.expert(task)
        if found is None:
            raise DataError(
                f"{self.name}: task {task.id!r} has no scripted expert (with the benchmark gym, "
                "expert=module:name gives one)"
            )
        return found

    def checks(self, task: Task) -> Iterable[Check]:
        """Conventions of this benchmark for ``vla bench-check``, measured one after another.

        Default: none; the command has checks of its own for every benchmark.
        """
        return ()

    def hold_action(self, last: np.ndarray | None) -> np.ndarray:
        """The action (A,) that keeps the robot still while it waits for its policy.

        Default: the last action, and before the first one 0 within the bounds. A benchmark whose
        actions are movements overrides it.

        Args:
            last: the last action; None: the robot has not acted yet.
        """
        low, high = np.array(self.action_space.low), np.array(self.action_space.high)
        return np.clip(np.zeros(len(low)), low, high).astype(np.float32) if last is None else last

    def select(self, names: Sequence[str] = (), group: str | None = None) -> list[Task]:
        """Tasks by id or group, each once; "all" is the group of all tasks.

        By default ``default_tasks``.

        Raises:
            ValueError: an unknown name; the message has the nearest one and the choices.
        """
        chosen = [*names, *([group] if group else [])]
        if not chosen:
            return self.default_tasks()
        by_name: dict[str, list[Task]] = {"all": self.tasks()}
        for task in self.tasks():
            if task.group:
                by_name.setdefault(task.group, []).append(task)
        by_name |= {task.id: [task] for task in self.tasks()}
        unknown = [n for n in chosen if n not in by_name]
        if unknown:
            raise ValueError(
                f"{self.name}: no task or group {unknown[0]!r}{nearest(unknown[0], by_name)}"
            )
        return list(dict.fromkeys(task for name in chosen for task in by_name[name]))

    def summarise(self, episodes: Sequence[EpisodeResult]) -> dict[str, float]:
        """Published averages by group: the mean over columns of the mean over their tasks.

        Shares are 0 to 1. A group is left out if one of its tasks has no episodes.
        """
        successes: dict[str, list[bool]] = {}
        for episode in episodes:
            successes.setdefault(episode.task, []).append(episode.success)
        groups: dict[str, dict[str, list[str]]] = {}
        for task in self.tasks():
            if task.group:
                columns = groups.setdefault(task.group, {})
                columns.setdefault(task.column or task.id, []).append(task.id)
        return {
            group: float(
                np.mean([np.mean([np.mean(successes[t]) for t in c]) for c in columns.values()])
            )
            for group, columns in groups.items()
            if all(t in successes for c in columns.values() for t in c)
        }
