"""Environments that run episodes one after the other, in this process or in others."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from vla.benchmarks.base import SEED, Benchmark, EpisodeResult, Expert, Task
from vla.errors import EnvironmentFailed
from vla.evaluation.checked_env import CheckedEnvironment


class AnySlot(Protocol):
    """One of the parallel environments. ``begin`` and ``step`` start, ``wait`` completes them."""

    task: Task | None  # of the present or last episode
    observation: dict[str, Any]  # the last one
    frames: list[np.ndarray] | None  # of the last episode, if it was recorded

    def begin(self, task: Task, seed: int, record: bool, look: bool) -> None:
        """Start an episode; ``record``: keep its frames; ``look``: the images will be read."""
        ...

    def step(self, action: np.ndarray | None, plan: str, look: bool) -> None:
        """Execute the action of a plan (may be empty); None: the action of the task's expert."""
        ...

    def wait(self) -> EpisodeResult | None:
        """Wait for the observation; returns the result if the episode has ended."""
        ...

    def close(self) -> None:
        """Close the environment."""
        ...


class Slot:
    """An environment in this process; it is reused while episodes of the same task follow.

    gymnasium's vector environments do not fit here. Their members have one common task, and a
    finished member restarts without a seed of its own. Here every episode has its own task, length
    and seed, so that the results do not depend on the number of parallel environments.
    """

    def __init__(self, benchmark: Benchmark) -> None:
        self.benchmark = benchmark
        self.task: Task | None = None
        self.env: CheckedEnvironment
        self.seed = -1
        self.observation: dict[str, Any] = {}
        self.frames: list[np.ndarray] | None = None
        self.plans: list[str] = []
        self._instruction = ""  # the first one of the episode
        self._expert: Expert | None = None
        self._result: EpisodeResult | None = None

    def begin(self, task: Task, seed: int, record: bool, look: bool = True) -> None:
        """See ``AnySlot``."""
        if self.task != task:
            self.close()
            self.env, self.task = CheckedEnvironment(self.benchmark, task), task
        self.seed, self.plans = seed, []
        self._expert, self._result = None, None
        self.observation = self.env.reset(seed=seed)[0]
        self._instruction = str(self.observation["instruction"])
        has_images = bool(self.observation["images"])
        self.frames = [_first_image(self.observation)] if record and has_images else None

    def step(self, action: np.ndarray | None, plan: str, look: bool = True) -> None:
        """See ``AnySlot``."""
        assert self.task is not None
        chosen = self._expert_action(self.task) if action is None else action
        self.observation, _, terminated, truncated, info = self.env.step(chosen)
        self.plans.append(plan)
        if self.frames is not None:
            self.frames.append(_first_image(self.observation))
        if not (terminated or truncated):
            return
        metrics = {m: float(info[m]) for m in self.benchmark.metrics if m in info}
        success = bool(info.get("success", False))
        result = self.task.id, self.seed, self._instruction, success, self.env.steps, metrics
        self._result = EpisodeResult(*result, plans=self.plans if any(self.plans) else [])

    def _expert_action(self, task: Task) -> np.ndarray:
        if self._expert is None:
            self._expert = self.benchmark.required_expert(task)
        return self.env.expert_action(self._expert, self.observation)

    def wait(self) -> EpisodeResult | None:
        """See ``AnySlot``."""
        return self._result

    def close(self) -> None:
        """Close the environment, if there is one."""
        if self.task is not None:
            self.env.close()
            self.task = None


def _first_image(observation: Mapping[str, Any]) -> np.ndarray:
    image: np.ndarray = next(iter(observation["images"].values()))
    return image


class ProcessSlot:
    """An environment in a process of its own. An observation has images if they will be read.

    The benchmark must be picklable.
    """

    def __init__(self, benchmark: Benchmark) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, benchmark), daemon=True)
        self._process.start()
        theirs.close()
        self.benchmark = benchmark.name
        self.observation: dict[str, Any] = {}
        self.frames: list[np.ndarray] | None = None
        self.task: Task | None = None

    def begin(self, task: Task, seed: int, record: bool, look: bool) -> None:
        """See ``AnySlot``."""
        self.task = task
        self._send("begin", task, seed, record, look)

    def step(self, action: np.ndarray | None, plan: str, look: bool) -> None:
        """See ``AnySlot``."""
        self._send("step", action, plan, look)

    def wait(self) -> EpisodeResult | None:
        """See ``AnySlot``; raises what the environment raised."""
        try:
            found = self._pipe.recv()
        except (EOFError, OSError):
            raise self._killed() from None
        if isinstance(found, BaseException):
            raise found
        self.observation, result, self.frames = found
        return result  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):  # it may have ended
            self._pipe.send(None)
        self._pipe.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()

    def _send(self, *message: Any) -> None:
        try:
            self._pipe.send(message)
        except OSError:
            raise self._killed() from None

    def _killed(self) -> EnvironmentFailed:
        self._process.join(10)
        task = self.task.id if self.task else ""
        return EnvironmentFailed(
            f"{self.benchmark}: task {task!r}: the process of the environment ended with exit code "
            f"{self._process.exitcode}, probably by lack of memory; give fewer --workers; the same "
            "command continues"
        )


def _serve(pipe: Any, benchmark: Benchmark) -> None:
    """Run the episodes that the other end of the pipe asks for; None ends it."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the processes share the CPUs
    slot = Slot(benchmark)
    try:
        while (message := pipe.recv()) is not None:
            name, *arguments = message
            text = slot.observation.get("instruction")
            try:
                getattr(slot, name)(*arguments)
                result = slot.wait()
                # A new instruction ends an action chunk, so the policy is called.
                changed = name == "step" and slot.observation["instruction"] != text
                look = arguments[-1] or changed
                images = dict(slot.observation["images"]) if look and result is None else {}
                frames = slot.frames if result else None
                pipe.send((slot.observation | {"images": images}, result, frames))
            except Exception as error:  # raised in the main process
                pipe.send(error)
    except (EOFError, OSError, KeyboardInterrupt):
        pass  # the main process has ended
    finally:
        slot.close()


def try_environment(benchmark: Benchmark, task: Task) -> None:
    """Open and reset one environment, in a process of its own if the benchmark is heavy.

    Raises:
        Exception: whatever the simulator raises.
    """
    slot: AnySlot = ProcessSlot(benchmark) if benchmark.is_heavy else Slot(benchmark)
    try:
        slot.begin(task, SEED, record=False, look=False)
        slot.wait()
    finally:
        slot.close()
