"""Recorded actions executed in an environment, to check their units, signs and order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vla.benchmarks.base import EpisodeResult, Task
from vla.config import override
from vla.data.manifest import load_manifest
from vla.data.packed import iter_samples, open_packed
from vla.data.row_texts import summary
from vla.data.samples import read_instructions, read_json, read_steps
from vla.errors import DataError
from vla.evaluation.checked_env import CheckedEnvironment
from vla.evaluation.environment import check_actions
from vla.evaluation.replay_starts import Starts, read_starts
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
    starts: Starts | None = None,
    names: Mapping[str, str] | None = None,
) -> tuple[list[EpisodeResult], list[float | None], list[list[np.ndarray]]]:
    """Execute the first ``episodes`` of a data set, also those of its validation split.

    An episode starts from its recorded first state if its info has a seed or ``reset_options``,
    otherwise from a fresh reset.

    Args:
        config: the benchmark (empty: the one that the data was recorded in).
        change: the actions (T, A) that are executed, from an episode's arrays.
        starts: chosen tasks and seeds; None: those of the recording.
        names: camera of the data -> name in the environment, where the two differ.

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
    cameras = tuple((names or {}).get(camera, camera) for camera in manifest.cameras)
    benchmark = open_benchmark(config, cameras)
    recorded = manifest.statistics.get("actions")
    check_actions(
        manifest.action_space, benchmark.action_space, benchmark.name, str(data), recorded
    )
    env: CheckedEnvironment | None = None
    task: Task | None = None
    results, differences, videos = [], [], []
    for number, sample in enumerate(islice(iter_samples(data), episodes)):
        meta, steps = read_json(sample), read_steps(sample)
        instruction = summary(read_instructions(meta, len(steps["actions"])))
        chosen, seed = (starts or Starts()).of(benchmark, number, meta, instruction)
        if env is None or chosen != task:
            if env is not None:
                env.close()
            task, env = chosen, CheckedEnvironment(benchmark, chosen)
        assert task is not None
        observation, info = env.reset(seed=seed, options=meta["info"].get("reset_options"))
        # Data without cameras: the environment's first one.
        camera = cameras[0] if cameras else next(iter(observation["images"]))
        frames, worst = [observation["images"][camera]], None
        for t, action in enumerate(change(steps)):
            own = observation.get("state")
            if own is not None and "state" in steps and own.shape == steps["state"][t].shape:
                worst = max(worst or 0.0, float(np.abs(own - steps["state"][t]).max()))
            observation, _, terminated, truncated, info = env.step(action)
            frames.append(observation["images"][camera])
            if terminated or truncated:
                break
        success, name = bool(info.get("success", False)), str(info.get("task", task.id))
        results.append(EpisodeResult(name, seed, instruction, success, t + 1))
        differences.append(worst)
        videos.append(frames)
    if env is not None:
        env.close()
    return results, differences, videos


def run_replay(
    data: Path,
    config: Mapping[str, Any],
    episodes: int,
    out: Path | None = None,
    overrides: list[str] | None = None,
    task: str | None = None,
    seed: int | None = None,
    starts: Path | None = None,
    cameras: Mapping[str, str] | None = None,
) -> None:
    """``vla replay``: a table, and with ``out`` JSON, contact sheet and animation.

    Args:
        starts: CSV file, see ``read_starts``.
        data, config, episodes: see ``replay``.
        task, seed: see ``Starts``.
        cameras: ``names`` of ``replay``.

    Raises:
        DataError: see ``replay`` and ``read_starts``.
    """
    config = override(dict(config) or load_manifest(data).benchmark, overrides or [])
    rows = read_starts(starts, [row.key for row in open_packed(data).index]) if starts else {}
    chosen = Starts(task, seed, rows)
    results, differences, videos = replay(
        data, config, episodes, starts=chosen, names=cameras or {}
    )
    print_table(table_rows({str(data): results}), f"recorded actions in {config['name']}")
    known = [d for d in differences if d is not None]
    if known:
        print(
            "largest difference between the environment's state and the recorded one: "
            f"median {np.median(known):.4g}, maximum {max(known):.4g}"
        )
    if out is not None:
        found = [
            asdict(r) | {"state_difference": d} for r, d in zip(results, differences, strict=True)
        ]
        write_json(
            out / "results.json", {"data": str(data), "benchmark": config, "episodes": found}
        )
        save_videos(videos[:12], results[:12], out / "replay")
