"""Check a benchmark with random actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from vla.benchmarks.base import Benchmark, EpisodeResult, Task
from vla.config import build
from vla.testing.example import example


def check_benchmark(name: str, *, policy_cameras: Sequence[str] = (), **options: Any) -> Benchmark:
    """Check a benchmark's tasks, observations and seeds with random actions. Returns the benchmark.

    Two episodes with the same seed and the same actions run to their end and must be equal.

    Args:
        name: the registered name.
        policy_cameras: cameras that a policy would use; empty: those of the benchmark.
        options: as in YAML; they are added to the class attribute ``example``, if there is one.

    Raises:
        ConfigError: an unknown benchmark or option.
        AssertionError: a check fails; the message says which one.
    """
    config = example("benchmark", name) | options | {"name": name}
    benchmark: Benchmark = build("benchmark", config, policy_cameras=tuple(policy_cameras))
    tasks, defaults = benchmark.tasks(), benchmark.default_tasks()
    ids = [task.id for task in tasks]
    assert tasks and len(set(ids)) == len(ids), f"{name}: tasks need unique ids, got {ids}"
    assert defaults and {t.id for t in defaults} <= set(ids), f"{name}: default_tasks not in tasks"
    assert benchmark.max_steps > 0, f"{name}: max_steps is {benchmark.max_steps}"
    for last in (None, np.array(benchmark.action_space.low, np.float32)):
        held = np.shape(benchmark.hold_action(last))
        assert held == (benchmark.action_space.dim,), f"{name}: hold_action has shape {held}"
    task = defaults[0]
    env = benchmark.make_env(task)
    try:
        first, again = (_episode(benchmark, env, task, seed=3) for _ in range(2))
    finally:
        env.close()
    for step, (one, two) in enumerate(zip(first, again, strict=False)):
        assert _equal(one, two), f"{name}: the same seed gives another observation at step {step}"
    lengths = [len(observations) - 1 for observations in (first, again)]
    assert lengths[0] == lengths[1], f"{name}: the same seed gives episodes of {lengths} steps"
    results = [EpisodeResult(t.id, 0, t.instruction, True, 1) for t in tasks]
    for group, success in benchmark.summarise(results).items():
        assert success == 1.0, f"{name}: group {group} is {success} when every episode succeeds"
    return benchmark


def _episode(
    benchmark: Benchmark, env: gym.Env[Any, Any], task: Task, seed: int
) -> list[dict[str, Any]]:
    """The observations of an episode with random actions, checked."""
    name, space = benchmark.name, benchmark.action_space
    random, expert = np.random.default_rng(seed), benchmark.expert(task)
    low, high = space.finite_bounds()
    observation, info = env.reset(seed=seed)
    observations = [_check_observation(observation, name)]
    ended = False
    while not ended and len(observations) <= benchmark.max_steps:
        action = random.uniform(low, high).astype(np.float32)
        if expert is not None and len(observations) == 1:
            shape = np.shape(expert(env, observation))
            assert shape == (space.dim,), f"{name}: the expert's action has shape {shape}"
        observation, _, terminated, truncated, info = env.step(action)
        observations.append(_check_observation(observation, name))
        ended = terminated or truncated
    assert ended, f"{name}: an episode does not end after max_steps={benchmark.max_steps}"
    success = info.get("success")
    is_bool = isinstance(success, bool | np.bool_)
    assert is_bool, f"{name}: info['success'] of the last step must be a bool, got {success!r}"
    assert isinstance(benchmark.metrics, tuple), f"{name}: metrics must be a tuple of names"
    missing = [m for m in benchmark.metrics if m not in info]
    assert not missing, f"{name}: info of the last step lacks the metrics {missing}"
    return observations


def _check_observation(observation: Any, name: str) -> dict[str, Any]:
    images = observation.get("images") if isinstance(observation, Mapping) else None
    assert images, f"{name}: observations need 'images': {{camera: (H, W, 3) uint8}}"
    for camera, image in images.items():
        right = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3
        assert right and image.shape[-1] == 3, f"{name}: camera {camera!r} is not (H, W, 3) uint8"
    text = observation.get("instruction")
    assert isinstance(text, str) and text, f"{name}: observations need an 'instruction' (a text)"
    state = observation.get("state", np.zeros(1, np.float32))
    right = isinstance(state, np.ndarray) and state.dtype == np.float32 and state.ndim == 1
    assert right, f"{name}: 'state' is not (P,) float32"
    copies = {camera: image.copy() for camera, image in images.items()}
    return {**observation, "images": copies, "state": state.copy()}


def _equal(one: dict[str, Any], two: dict[str, Any]) -> bool:
    same = one["images"].keys() == two["images"].keys()
    same = same and all(np.array_equal(i, two["images"][c]) for c, i in one["images"].items())
    return (
        same
        and one["instruction"] == two["instruction"]
        and bool(np.array_equal(one["state"], two["state"]))
    )
