"""Records demonstrations of the scripted experts of any benchmark for ``vla pack``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from vla.benchmarks.base import SEED, Benchmark, Task
from vla.config import build, override, register
from vla.data.images import encode_image
from vla.data.manifest import Manifest
from vla.data.pack import pack
from vla.data.source import Source
from vla.errors import DataError
from vla.evaluation.checked_env import CheckedEnvironment
from vla.types import Episode
from vla.utils.notes import note

IN_A_ROW = 5  # episodes of a task in a row in recordings of ``vla record``
SHARD = 50  # smallest number of episodes of their shards, if there are as many


@register("source", "benchmark")
class BenchmarkSource(Source):
    """Successful episodes of a benchmark's experts. The tasks take turns.

    With ``in_a_row`` above 1 an environment is reused for as many episodes.
    """

    def __init__(
        self,
        benchmark: dict[str, Any],  # name and options of the benchmark
        episodes: int,  # number of episodes over all tasks, at least 1
        tasks: tuple[str, ...] = (),  # ids or groups of tasks; empty: the default tasks
        seed: int = 0,  # seed of the first episode of every task; the next has seed + 1
        attempts: int = 10,  # attempts at an episode before an error, each with another seed
        in_a_row: int = 1,  # episodes of a task before the next task's turn, at least 1
    ) -> None:
        if in_a_row < 1:
            raise DataError(f"in_a_row: expected at least 1, got {in_a_row}")
        self.in_a_row = in_a_row
        self._open: tuple[Task, CheckedEnvironment] | None = None
        self.config, self.episodes, self.task_names = dict(benchmark), episodes, tuple(tasks)
        self.seed, self.attempts = seed, attempts
        self._benchmark: Benchmark = build("benchmark", self.config, "benchmark")
        self.action_space = self._benchmark.action_space
        self.tasks = self._benchmark.select(self.task_names)
        for task in self.tasks:
            self._benchmark.required_expert(task)
        self._rounds = math.ceil(episodes / len(self.tasks))
        if seed + attempts * self._rounds > SEED:
            raise DataError(
                f"recording would use seeds {seed} to {seed + attempts * self._rounds - 1}, and "
                f"evaluation has those from {SEED} on; decrease seed, episodes or attempts"
            )
        with closing(CheckedEnvironment(self._benchmark, self.tasks[0])) as env:
            observation = env.reset(seed=seed)[0]
            self._sizes = sizes = _sizes(observation)
            self._check(self.tasks[0], observation)
        distinct = set(sizes.values())
        self.image_size = distinct.pop() if len(distinct) == 1 else (0, 0)
        if len(distinct) > 1:
            note(
                f"images of different sizes ({_listed(sizes)}): a policy takes one size, so train "
                f"with one of them, for example data.window.cameras=[{next(iter(sizes))}]"
            )

    def _check(self, task: Task, observation: Mapping[str, Any]) -> None:
        """Refuse an episode without an instruction, or with other images than the first task."""
        sizes = _sizes(observation)
        if sizes != self._sizes:
            raise DataError(
                f"{self._benchmark.name}: task {task.id!r} has the images {_listed(sizes)}, task "
                f"{self.tasks[0].id!r} has {_listed(self._sizes)}; record the two separately"
            )
        if not observation["instruction"].strip():
            raise DataError(
                f"{self._benchmark.name}: task {task.id!r} has no instruction; set the benchmark's "
                "instruction='...'"
            )

    def __len__(self) -> int:
        return self.episodes

    def __getitem__(self, index: int) -> Episode:
        task, turn, is_last = self._place(index)
        try:
            env = self._environment(task)
            for attempt in range(self.attempts):
                seed = self.seed + turn + attempt * self._rounds
                episode = self._record(index, env, task, seed)
                if episode is not None:
                    return episode
            raise DataError(
                f"episode {index}: the expert of task {task.id!r} failed in {self.attempts} "
                f"attempts (the last had seed {seed}); `vla eval expert` shows its success, --task "
                "chooses other tasks, and in a pack file source.attempts can be larger"
            )
        except BaseException:
            is_last = True
            raise
        finally:
            if is_last:
                self._close()

    def _place(self, index: int) -> tuple[Task, int, bool]:
        """Task and turn of an episode; True if it is the last of the task in a row."""
        count = len(self.tasks)
        block, rest = divmod(index, count * self.in_a_row)
        first = block * self.in_a_row
        row = min(self.in_a_row, self._rounds - first)
        number, turn = divmod(rest, row)
        return self.tasks[number], first + turn, turn == row - 1

    def _environment(self, task: Task) -> CheckedEnvironment:
        """The open environment if it has this task, else a new one."""
        if self._open is None or self._open[0] != task:
            self._close()
            self._open = task, CheckedEnvironment(self._benchmark, task)
        return self._open[1]

    def _close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _record(self, index: int, env: CheckedEnvironment, task: Task, seed: int) -> Episode | None:
        """One episode, or None if it is not successful."""
        benchmark = self._benchmark
        expert = benchmark.required_expert(task)
        observation, info = env.reset(seed=seed)
        self._check(task, observation)
        texts: list[str] = []
        images: dict[str, list[bytes]] = {camera: [] for camera in observation["images"]}
        actions, states, rewards, plans, ended = [], [], [], [], False
        while not ended:
            for camera, image in observation["images"].items():
                images[camera].append(encode_image(image))
            if "state" in observation:
                states.append(observation["state"])
            texts.append(str(observation["instruction"]))
            plans.append(str(info.get("plan", "")))
            action = env.expert_action(expert, observation)
            observation, reward, terminated, truncated, info = env.step(action)
            actions.append(action)
            rewards.append(float(reward))
            ended = terminated or truncated
        if not info.get("success", False):
            return None
        return Episode(
            key=f"{index:07d}",
            instruction=texts[0],
            instructions=texts if len(set(texts)) > 1 else [],
            images=images,
            actions=np.array(actions, np.float32),
            state=np.array(states, np.float32) if states else None,
            rewards=np.array(rewards, np.float32),
            plans=plans if any(plans) else [],
            robot=benchmark.name,
            fps=benchmark.action_space.rate_hz,
            source="expert",
            info={"task": task.id, "seed": seed},
        )

    def benchmark(self) -> dict[str, Any]:
        """The configuration of the benchmark."""
        return self.config

    def describe(self) -> dict[str, Any]:
        """All options."""
        return {
            "name": "benchmark",
            "benchmark": self.config,
            "episodes": self.episodes,
            "tasks": self.task_names,
            "seed": self.seed,
            "attempts": self.attempts,
        } | ({"in_a_row": self.in_a_row} if self.in_a_row > 1 else {})


def _sizes(observation: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Camera -> height and width in px."""
    return {camera: image.shape[:2] for camera, image in observation["images"].items()}


def _listed(sizes: Mapping[str, tuple[int, int]]) -> str:
    return ", ".join(f"{camera} {h} x {w}" for camera, (h, w) in sizes.items()) or "none"


def record(
    benchmark: str,
    out: Path,
    episodes: int,
    tasks: Sequence[str] = (),
    workers: int = 0,
    seed: int = 0,
    overrides: Sequence[str] = (),
    force: bool = False,
) -> Manifest:
    """``vla record``: pack demonstrations of a benchmark's experts under ``out``.

    The bytes depend on the options alone, not on interruptions or the number of processes.

    Args:
        benchmark: registered name.
        episodes: number of each task.
        tasks: ids or groups; empty: the default tasks.
        workers: processes; 0: only this one.
        seed: see ``BenchmarkSource``.
        overrides: options of the benchmark as key=value.

    Raises:
        ConfigError: an unknown benchmark or option.
        DataError: see ``BenchmarkSource`` and ``pack``.
    """
    config = override({"name": benchmark}, list(overrides))
    simulator: Benchmark = build("benchmark", config, "benchmark")
    count = len(simulator.select(tasks))
    row = min(IN_A_ROW, episodes)
    source = BenchmarkSource(config, episodes * count, tuple(tasks), seed, in_a_row=row)
    block = row * count  # a shard has whole blocks, so that every shard has all tasks
    return pack(source, out, block * math.ceil(SHARD / block), workers=workers, force=force)
