"""``vla bench-check``: checks of a benchmark's conventions that measure its simulator."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import gymnasium as gym
import numpy as np

from vla.benchmarks.base import SEED, Benchmark, Check, Task
from vla.evaluation.checked_env import CheckedEnvironment
from vla.types import ActionSpace

_STEPS = 1  # of the episodes with random actions
_MARGIN = 1e-3  # of the range between two bounds


def checks_of(benchmark: Benchmark, task: Task, attempts: int) -> Iterator[Check]:
    """The checks of every benchmark, then those of this one.

    Args:
        attempts: largest number of episodes in which the expert may succeed; 0: it is not tried.
    """
    with closing(CheckedEnvironment(benchmark, task)) as env:
        yield from _repeats(benchmark, env)
        yield _bounds(benchmark, env)
        if attempts and benchmark.expert(task) is not None:
            yield _expert(benchmark, task, env, attempts)
    yield from benchmark.checks(task)


def _repeats(benchmark: Benchmark, env: gym.Env[Any, Any]) -> Iterator[Check]:
    """A seed gives one episode; two seeds may give two."""
    random = np.random.default_rng(0)
    low, high = benchmark.action_space.finite_bounds()
    actions = random.uniform(low, high, (_STEPS, len(low))).astype(np.float32)
    first, again = (_episode(env, SEED, actions) for _ in range(2))
    (other,) = _episode(env, SEED + 1, actions[:0])
    differ = [k for k, (a, b) in enumerate(zip(first, again, strict=False)) if not _equal(a, b)]
    yield Check(
        "seed",
        "the same seed and action give the same images, state and instruction",
        f"another observation at step {differ[0]}" if differ else "the same",
        not differ,
    )
    images = first[0]["images"]
    shapes = {camera: image.shape for camera, image in images.items()}
    flat = [camera for camera, image in images.items() if image.min() == image.max()]
    right = all(i.dtype == np.uint8 and i.ndim == 3 and i.shape[2] == 3 for i in images.values())
    yield Check(
        "images",
        "(H, W, 3) uint8 with more than one colour",
        ", ".join(f"{c} {'x'.join(map(str, s))}" for c, s in shapes.items())
        + (f"; one colour: {', '.join(flat)}" if flat else "")
        + ("; seeds differ" if not _equal(first[0], other) else "; two seeds look the same"),
        bool(images) and right and not flat,
    )


def _bounds(benchmark: Benchmark, env: gym.Env[Any, Any]) -> Check:
    """Actions at both bounds are taken."""
    space, problems = benchmark.action_space, []
    for name, bound in zip(("low", "high"), space.finite_bounds(), strict=True):
        env.reset(seed=SEED)
        try:
            state = env.step(np.array(bound, np.float32))[0].get("state", np.zeros(1))
        except Exception as error:  # environments raise any exception
            problems.append(f"{name}: {type(error).__name__}: {error}")
            continue
        if not np.isfinite(state).all():
            problems.append(f"{name}: the state is not finite")
    return Check(
        "action bounds",
        f"{space.dim} numbers ({', '.join(space.names)}) at both bounds",
        "; ".join(problems) or f"taken, {min(space.low):g} to {max(space.high):g}",
        not problems,
    )


def _expert(benchmark: Benchmark, task: Task, env: CheckedEnvironment, attempts: int) -> Check:
    """The scripted expert reaches success."""
    expected = f"the expert succeeds once in {attempts} episodes"
    for attempt in range(attempts):
        expert = benchmark.required_expert(task)
        observation, _ = env.reset(seed=SEED + attempt)
        info: dict[str, Any] = {}
        steps, ended = 0, False
        while not ended:
            action = env.expert_action(expert, observation)
            observation, _, terminated, truncated, info = env.step(action)
            steps, ended = steps + 1, terminated or truncated
        if info.get("success"):
            found = f"episode {attempt + 1}, {steps} of {benchmark.max_steps} steps"
            return Check("success", expected, found, True)
    return Check("success", expected, "no success", False)


def compare_actions(ours: ActionSpace, theirs: ActionSpace, giver: str) -> Iterator[Check]:
    """Checks that the actions of a policy or a data set are those of a benchmark.

    Args:
        ours: action space of the policy or the data set.
        theirs: action space of the benchmark.
        giver: "policy" or "data".
    """

    def same(what: str, want: Any, got: Any, needed: bool = True) -> Check:
        passed = want == got or not needed
        return Check(f"{giver}: {what}", _text(want), _text(got), passed)

    yield same("action names", theirs.names, ours.names)
    yield same("action units", theirs.units, ours.units, needed="recorded" not in ours.units)
    yield same("control rate, Hz", theirs.rate_hz, ours.rate_hz)
    for what in ("relative", "absolute", "rotation"):
        want, got = getattr(theirs, what), getattr(ours, what)
        if want or got:
            yield same(what, want, got, needed=bool(want and got))
    yield compare_bounds(f"{giver}: action bounds", ours.low, ours.high, theirs)


def compare_bounds(
    name: str, low: Sequence[float], high: Sequence[float], theirs: ActionSpace
) -> Check:
    """Checks that ranges of actions are inside those of a benchmark."""
    outside = [
        f"{dimension} {a:g} to {b:g}"
        for dimension, a, b, least, most in zip(
            theirs.names, low, high, theirs.low, theirs.high, strict=False
        )
        if a < least - (margin := _MARGIN * _width(least, most)) or b > most + margin
    ]
    return Check(
        name,
        f"{_text(theirs.low)} to {_text(theirs.high)}",
        "; ".join(outside) or "within",
        not outside,
    )


def _width(least: float, most: float) -> float:
    return most - least if math.isfinite(most - least) else 1.0


def compare_inputs(
    env: gym.Env[Any, Any], cameras: Sequence[str], state_dim: int, giver: str
) -> Iterator[Check]:
    """Checks that an environment gives the images and the state that a policy or data set has."""
    observation = env.reset(seed=SEED)[0]
    given = list(observation["images"])
    yield Check(
        f"{giver}: cameras",
        f"among {', '.join(given)}",
        ", ".join(cameras) or "none",
        set(cameras) <= set(given),
    )
    size = len(observation.get("state", ()))
    yield Check(
        f"{giver}: state", f"{size} numbers", f"{state_dim} numbers", state_dim in (0, size)
    )


def _episode(env: gym.Env[Any, Any], seed: int, actions: np.ndarray) -> list[dict[str, Any]]:
    """Observations with all images, until the episode ends at the latest."""
    observation, _ = env.reset(seed=seed)
    found = [_copied(observation)]
    for action in actions:
        observation, _, terminated, truncated, _ = env.step(action)
        found.append(_copied(observation))
        if terminated or truncated:
            break
    return found


def _copied(observation: Mapping[str, Any]) -> dict[str, Any]:
    images = {camera: np.array(image) for camera, image in observation["images"].items()}
    state = np.array(observation.get("state", np.zeros(0)))
    return {"images": images, "state": state, "instruction": observation["instruction"]}


def _equal(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    return (
        one["instruction"] == two["instruction"]
        and np.array_equal(one["state"], two["state"])
        and one["images"].keys() == two["images"].keys()
        and all(np.array_equal(i, two["images"][c]) for c, i in one["images"].items())
    )


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value) or "not stated"
    return f"{value:g}" if isinstance(value, float) else str(value) or "not stated"
