"""Closed-loop evaluation: parallel environments, one policy, the same seeds for every policy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vla.benchmarks.base import SEED, Benchmark, EpisodeResult, Task
from vla.config import build
from vla.evaluation.environment import check_actions
from vla.evaluation.groups import group_summary
from vla.evaluation.results import ResultRows
from vla.evaluation.slots import AnySlot, ProcessSlot, Slot
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

    def looks(self, key: int) -> bool:
        """False if the next ``act`` does not read the images of this slot."""
        ...

    def act(self, keys: Sequence[int], observations: Sequence[dict[str, Any]]) -> Iterable[Any]:
        """Actions (A,) in robot units, one for each key; None: the task's expert acts."""
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


def rollouts(
    actor: Actor,
    benchmark: Benchmark,
    tasks: Sequence[Task],
    seeds: Sequence[int],
    num_envs: int = 50,
    videos: int = 0,
    progress: bool = True,
    plan_of: Callable[[int], str] | None = None,
    workers: int = 0,
    ended: Callable[[EpisodeResult], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> tuple[list[EpisodeResult], list[list[np.ndarray]]]:
    """Run episode ``i`` of ``tasks[i]`` with ``seeds[i]``, ``num_envs`` at a time.

    Args:
        plan_of: gives the plan of an episode's present action by its key, for the results.
        workers: processes with one environment each, instead of ``num_envs`` in this process.
        ended: called with every result when its episode ends.
        stop: asked at every step; True ends the episodes.

    Returns:
        Results in the order of ``seeds``, and the frames of the first ``videos`` episodes. Frames
        are of the first camera, (H, W, 3) uint8.

    Raises:
        KeyboardInterrupt: ``stop`` said so.
    """
    results: dict[int, EpisodeResult] = {}
    frames: dict[int, list[np.ndarray]] = {}
    waiting = list(range(len(seeds)))
    kind: Callable[[Benchmark], AnySlot] = ProcessSlot if workers else Slot
    slots = [kind(benchmark) for _ in range(min(workers or num_envs, len(seeds)))]
    live: dict[int, int] = {}  # number of the slot -> episode
    title = f"rollouts in {benchmark.name}"
    try:
        with Progress(title, len(seeds), "episodes", show=progress) as bar:
            while waiting or live:
                if stop is not None and stop():
                    raise KeyboardInterrupt
                begun = []
                for key, slot in enumerate(slots):
                    if key not in live and waiting:
                        begun.append(key)
                        live[key] = episode = _next_episode(waiting, tasks, slot.task)
                        actor.reset(key)
                        look = actor.looks(key)
                        slot.begin(tasks[episode], seeds[episode], episode < videos, look)
                for key in begun:
                    slots[key].wait()
                actions = actor.act(list(live), [slots[key].observation for key in live])
                for key, action in zip(live, actions, strict=True):
                    plan = plan_of(key) if plan_of else ""
                    slots[key].step(action, plan, actor.looks(key))
                for key in list(live):
                    result, slot = slots[key].wait(), slots[key]
                    if result is not None:
                        episode = live.pop(key)
                        results[episode] = result
                        if slot.frames is not None:
                            frames[episode] = slot.frames
                        if ended is not None:
                            ended(result)
                        bar.advance()
                won = sum(r.success for r in results.values())
                bar.note = f"{won} of {len(results)} succeeded" if results else ""
                bar.advance(0)  # also while no episode ends
    finally:
        for slot in slots:
            slot.close()
    return [results[i] for i in range(len(seeds))], [frames[i] for i in sorted(frames)]


def _next_episode(waiting: list[int], tasks: Sequence[Task], task: Task | None) -> int:
    """Take the next episode: one of the same task if there is one, to reuse the environment."""
    index = next((i for i, episode in enumerate(waiting) if tasks[episode] == task), 0)
    return waiting.pop(index)


class _Experts:
    """The experts of the tasks act; no image is read."""

    def reset(self, key: int) -> None:
        """Nothing to reset."""

    def looks(self, key: int) -> bool:
        """Never."""
        return False

    def act(self, keys: Sequence[int], observations: Sequence[dict[str, Any]]) -> list[None]:
        """No actions: the environments ask the experts."""
        return [None] * len(keys)


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
    workers: int | None = None,
    identity: Mapping[str, Any] | None = None,
    stop: Callable[[], bool] | None = None,
) -> tuple[list[EpisodeResult], list[list[np.ndarray]]]:
    """``episodes`` episodes of every task; written to ``out`` as JSON if given.

    Args:
        policy: a policy bound to one robot (``BasePolicy.robot``); None: the tasks' experts.
        out: path of the JSON file.
        execution: see ``PolicyRunner``.
        latency: the environment advances while the policy predicts (``RealTimeRunner``), one
            environment at a time if it is live; None: it waits.
        workers: see ``rollouts``; None: two for each CPU if the benchmark is heavy, else 0.
        identity: what the results depend on. With it, rows are written beside ``out`` as episodes
            end, and an unfinished evaluation with the same identity continues.
        stop: see ``rollouts``.

    Returns:
        See ``rollouts``. There are no frames if an earlier call has run one of these episodes.

    Raises:
        ValueError: the policy's actions do not fit the benchmark, see ``check_actions``; a task
            has no expert; or the execution or the latency does not fit the policy.
        EnvironmentFailed: an environment raised an exception.
    """
    # Episode k of every task comes before episode k + 1 of any, so that videos show all tasks.
    jobs = [(task, seed + k) for k in range(episodes) for task in tasks]
    if workers is None:
        workers = 2 * (os.cpu_count() or 1) if benchmark.is_heavy else 0
    actor: PolicyRunner | RealTimeRunner | _Experts = _Experts()
    about: dict[str, Any] = {"benchmark": benchmark.name, "facts": benchmark.facts()}
    about |= {"config": identity["config"]} if identity and "config" in identity else {}
    if policy is None:
        for task in tasks:
            benchmark.required_expert(task)
    else:
        spec, recorded = policy.spec, policy.spec.statistics.get("actions")
        check_actions(spec.action_space, benchmark.action_space, benchmark.name, recorded=recorded)
        actor = runner = PolicyRunner(policy, execution)
        about["execution"] = asdict(runner.execution)
        if latency is not None:
            actor = RealTimeRunner(runner, latency, benchmark.hold_action)
            num_envs, workers = (1, min(workers, 1)) if latency.live else (num_envs, workers)
    rows = None
    if out is not None and identity is not None:
        asked = about | dict(identity) | {"latency": asdict(latency) if latency else None}
        rows = ResultRows(Path(out).with_suffix(".jsonl"), asked)
    found = dict(rows.finished) if rows else {}
    todo = [(task, s) for task, s in jobs if (task.id, s) not in found]
    if any((task.id, s) in found for task, s in jobs[:videos]):
        videos = 0
    is_complete = False
    try:
        fresh, frames = rollouts(
            actor,
            benchmark,
            [task for task, _ in todo],
            [s for _, s in todo],
            num_envs,
            videos,
            progress,
            None if isinstance(actor, _Experts) else actor.plan,
            workers,
            rows.append if rows else None,
            stop,
        )
        found |= {(r.task, r.seed): r for r in fresh}
        results = [found[task.id, s] for task, s in jobs]
        if progress and isinstance(actor, RealTimeRunner):
            print(actor.describe())
        if out is not None:
            about |= {
                "latency": actor.summary() if isinstance(actor, RealTimeRunner) else None,
                "summary": summary(results),
                "groups": group_summary(benchmark, results),
                "episodes": [asdict(r) for r in results],
            }
            write_json(Path(out), about)
        is_complete = True
    finally:
        if rows is not None:
            rows.close(is_complete)
    return results, frames
