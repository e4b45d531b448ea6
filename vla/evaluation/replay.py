"""Recorded actions executed in an environment, to check their units, signs and order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vla.benchmarks.base import EpisodeResult
from vla.config import override
from vla.data.manifest import load_manifest
from vla.data.packed import iter_samples
from vla.data.row_texts import summary
from vla.data.samples import read_instructions, read_json, read_steps
from vla.errors import DataError
from vla.evaluation.environment import check_actions, explained
from vla.evaluation.report import table_rows
from vla.evaluation.rollout import open_benchmark
from vla.evaluation.video import save_videos
from vla.utils.io import write_json
from vla.utils.tables import print_table


def replay(
    data: Path,
    config: Mapping[str, Any],
    episodes: int,
    change: Callable[[dict[str, np.ndarray]], np.ndarray] = lambda steps: steps["actions"],
) -> tuple[list[EpisodeResult], list[float | None], list[list[np.ndarray]]]:
    """Execute the first ``episodes`` of the training split.

    An episode starts from its recorded first state if its info has a seed or ``reset_options``,
    otherwise from a fresh reset.

    Args:
        config: the benchmark (empty: the one that the data was recorded in).
        change: the actions (T, A) that are executed, from an episode's arrays.

    Returns:
        Results, the largest absolute difference between the environment's state and the recorded
        one (None where either has none), and the frames.

    Raises:
        DataError: no robot episodes, no benchmark, or it takes other actions.
        EnvironmentFailed: the environment raised an exception.
    """
    manifest = load_manifest(data)
    if manifest.action_space is None:
        raise DataError(f"{data}: web images, not robot episodes")
    config = dict(config) or manifest.benchmark
    if not config:
        raise DataError(f"{data}: not recorded in a benchmark; name one with --benchmark or --env")
    benchmark = open_benchmark(config, manifest.cameras)
    check_actions(manifest.action_space, benchmark.action_space, benchmark.name, str(data))
    tasks = {t.id: t for t in benchmark.tasks()}
    task, cameras = benchmark.default_tasks()[0], manifest.cameras
    env = benchmark.make_env(task)
    results, differences, videos = [], [], []
    for number, sample in enumerate(islice(iter_samples(data, "train"), episodes)):
        meta, steps = read_json(sample), read_steps(sample)
        recorded = meta["info"]
        if tasks.get(recorded.get("task"), task) != task:
            env.close()
            task = tasks[recorded["task"]]
            env = benchmark.make_env(task)
        seed = recorded.get("seed", number)
        with explained(benchmark.name, task.id, seed, 0):
            observation, info = env.reset(seed=seed, options=recorded.get("reset_options"))
        # Data without cameras: the environment's first one.
        camera = cameras[0] if cameras else next(iter(observation["images"]))
        frames, worst = [observation["images"][camera]], None
        for t, action in enumerate(change(steps)):
            own = observation.get("state")
            if own is not None and "state" in steps and own.shape == steps["state"][t].shape:
                worst = max(worst or 0.0, float(np.abs(own - steps["state"][t]).max()))
            with explained(benchmark.name, task.id, seed, t):
                observation, _, terminated, truncated, info = env.step(action)
            frames.append(observation["images"][camera])
            if terminated or truncated:
                break
        success, name = bool(info.get("success", False)), str(info.get("task", task.id))
        instruction = summary(read_instructions(meta, len(steps["actions"])))
        results.append(EpisodeResult(name, number, instruction, success, t + 1))
        differences.append(worst)
        videos.append(frames)
    return results, differences, videos


def run_replay(
    data: Path,
    config: Mapping[str, Any],
    episodes: int,
    out: Path | None = None,
    overrides: list[str] | None = None,
) -> None:
    """``vla replay``: a table, and with ``out`` JSON, contact sheet and animation."""
    config = override(dict(config) or load_manifest(data).benchmark, overrides or [])
    results, differences, videos = replay(data, config, episodes)
    print_table(table_rows({str(data): results}), f"recorded actions in {config['name']}")
    known = [d for d in differences if d is not None]
    if known:
        print(
            "largest difference between the environment's state and the recorded one: "
            f"median {np.median(known):.4g}, maximum {max(known):.4g}"
        )
    if out is not None:
        rows = [
            asdict(r) | {"state_difference": d} for r, d in zip(results, differences, strict=True)
        ]
        write_json(out / "results.json", {"data": str(data), "benchmark": config, "episodes": rows})
        save_videos(videos[:12], results[:12], out / "replay")
