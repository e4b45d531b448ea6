"""Closed-loop evaluation: parallel environments, one policy, the same seeds for every policy."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from vla.benchmarks.base import SEED, Benchmark, EpisodeResult, Task
from vla.config import build
from vla.errors import DataError
from vla.evaluation.environment import check_actions, explained
from vla.evaluation.statistics import summary
from vla.inference.realtime import Latency, RealTimeRunner
from vla.inference.runner import PolicyRunner
from vla.policies.execution import Execution
from vla.utils.io import write_json
from vla.utils.progress import Progress


class Actor(Protocol):
    """The interface of whatever acts in ``rollouts``, for example ``PolicyRunner``."""

    def reset(self, key: int) -> None:
        """Start a new episode in this slot."""
        ...

    def act(self, keys: Sequence[int], observations: Sequence[dict[str, Any]]) -> np.ndarray:
        """Actions (B, A) in robot units, one for each key."""
        ...


def open_benchmark(config: Mapping[str, Any], cameras: Sequence[str] = ()) -> Benchmark:
    """The benchmark that a configuration describes, with the cameras that a policy uses.

    Raises:
        ConfigError: an unknown benchmark or argument.
    """
    benchmark: Benchmark = build(
        "benchmark", dict(config), "benchmark", policy_cameras=tuple(cameras)
    )
    return benchmark


class _Slot:
    """One of the parallel environments; it is reused while episodes of the same task follow.

    gymnasium's vector environments do not fit here. Their members have one common task, and a
    finished member restarts without a seed of its own. Here every episode has its own task, length
    and seed, so that the results do not depend on the number of parallel environments.
    """

    def __init__(self, benchmark: Benchmark) -> None:
        self.benchmark = benchmark
        self.task: Task | None = None
        self.env: gym.Env[Any, Any]
        self.episode = self.seed = self.steps = -1
        self.observation: dict[str, Any] = {}
        self.frames: list[np.ndarray] | None = None
        self.plans: list[str] = []

    def begin(self, episode: int, task: Task, seed: int, record: bool) -> None:
        """Start an episode; ``record``: keep its frames."""
        if self.task != task:
            self.close()
            self.env, self.task = self.benchmark.make_env(task), task
        self.episode, self.seed, self.steps, self.plans = episode, seed, 0, []
        with explained(self.benchmark.name, task.id, seed, 0):
            self.observation = self.env.reset(seed=seed)[0]
        self.frames = [_first_image(self.observation)] if record else None

    def step(self, action: np.ndarray, plan: str) -> EpisodeResult | None:
        """Execute the action of a plan (may be empty); the result if the episode has ended."""
        instruction = self.observation["instruction"]
        assert self.task is not None
        with explained(self.benchmark.name, self.task.id, self.seed, self.steps):
            self.observation, _, terminated, truncated, info = self.env.step(action)
        self.steps += 1
        self.plans.append(plan)
        if self.frames is not None:
            self.frames.append(_first_image(self.observation))
        if not (terminated or truncated):
            return None
        metrics = {m: float(info[m]) for m in self.benchmark.metrics if m in info}
        success = bool(info.get("success", False))
        result = self.task.id, self.seed, instruction, success, self.steps, metrics
        return EpisodeResult(*result, plans=self.plans if any(self.plans) else [])

    def close(self) -> None:
        """Close the environment, if there is one."""
        if self.task is not None:
            self.env.close()


def _first_image(observation: Mapping[str, Any]) -> np.ndarray:
    image: np.ndarray = next(iter(observation["images"].values()))
    return image


def rollouts(
    actor: Actor,
    benchmark: Benchmark,
    tasks: Sequence[Task],
    seeds: Sequence[int],
    num_envs: int = 50,
    videos: int = 0,
    progress: bool = True,
    plan_of: Callable[[int], str] | None = None,
) -> tuple[list[EpisodeResult], list[list[np.ndarray]]]:
    """Run episode ``i`` of ``tasks[i]`` with ``seeds[i]``, ``num_envs`` at a time.

    Args:
        plan_of: gives the plan of an episode's present action by its key, for the results.

    Returns:
        Results in the order of ``seeds``, and the frames of the first ``videos`` episodes. Frames
        are of the first camera, (H, W, 3) uint8.
    """
    results: dict[int, EpisodeResult] = {}
    frames: dict[int, list[np.ndarray]] = {}
    waiting = deque(range(len(seeds)))
    slots = [_Slot(benchmark) for _ in range(min(num_envs, len(seeds)))]
    live: dict[int, _Slot] = {}
    title = f"rollouts in {benchmark.name}"
    with Progress(title, len(seeds), "episodes", show=progress) as bar:
        while waiting or live:
            for key, slot in enumerate(slots):
                if key not in live and waiting:
                    episode = waiting.popleft()
                    actor.reset(key)
                    slot.begin(episode, tasks[episode], seeds[episode], episode < videos)
                    live[key] = slot
            actions = actor.act(list(live), [slot.observation for slot in live.values()])
            for (key, slot), action in zip(list(live.items()), actions, strict=True):
                result = slot.step(action, plan_of(key) if plan_of else "")
                if result is not None:
                    results[slot.episode] = result
                    if slot.frames is not None:
                        frames[slot.episode] = slot.frames
                    del live[key]
                    bar.advance()
            won = sum(r.success for r in results.values())
            bar.note = f"{won} of {len(results)} succeeded" if results else ""
            bar.advance(0)  # also while no episode ends
    for slot in slots:
        slot.close()
    return [results[i] for i in range(len(seeds))], [frames[i] for i in sorted(frames)]


def evaluate(
    policy: Any,
    benchmark: Benchmark,
    tasks: Sequence[Task],
    episodes: int,
    out: str | Path | None = None,
    num_envs: int = 50,
    videos: int = 0,
    seed: int = SEED,
    progress: bool = True,
    execution: Execution | None = None,
    latency: Latency | None = None,
) -> tuple[list[EpisodeResult], list[list[np.ndarray]]]:
    """``episodes`` episodes of every task; written to ``out`` as JSON if given.

    Args:
        policy: a policy bound to one robot (``BasePolicy.robot``).
        out: path of the JSON file.
        execution: see ``PolicyRunner``.
        latency: the environment advances while the policy predicts (``RealTimeRunner``), one
            environment at a time if it is live; None: it waits.

    Returns:
        See ``rollouts``.

    Raises:
        ValueError: the policy's actions do not fit the benchmark, see ``check_actions``; or the
            execution or the latency does not fit the policy.
        EnvironmentFailed: an environment raised an exception.
    """
    check_actions(policy.spec.action_space, benchmark.action_space, benchmark.name)
    # Episode k of every task comes before episode k + 1 of any, so that videos show all tasks.
    seeds = [seed + k for k in range(episodes) for _ in tasks]
    runner, every = PolicyRunner(policy, execution), list(tasks) * episodes
    actor: PolicyRunner | RealTimeRunner = runner
    if latency is not None:
        actor = RealTimeRunner(runner, latency, benchmark.hold_action)
        num_envs = 1 if latency.live else num_envs
    results, frames = rollouts(
        actor, benchmark, every, seeds, num_envs, videos, progress, actor.plan
    )
    if progress and isinstance(actor, RealTimeRunner):
        print(actor.describe())
    if out is not None:
        rows = [asdict(r) for r in results]
        about = {
            "benchmark": benchmark.name,
            "execution": asdict(runner.execution),
            "latency": actor.summary() if isinstance(actor, RealTimeRunner) else None,
            "summary": summary(results),
            "episodes": rows,
        }
        write_json(Path(out), about)
    return results, frames


def read_results(path: Path) -> list[EpisodeResult]:
    """Episodes of a ``results.json``.

    Raises:
        DataError: no such file, or not what ``vla eval`` writes.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["episodes"]
        return [EpisodeResult(**row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not the results of `vla eval` ({error}); give the results.json it wrote"
        ) from error
