"""Two forms of one policy on the same observations: an exported or merged one and the original."""

from __future__ import annotations

from collections.abc import Generator, Hashable
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

import numpy as np
import torch

from vla.benchmarks.base import SEED
from vla.errors import ConfigError
from vla.evaluation.rollout import open_benchmark
from vla.inference.runner import Observation, PolicyRunner
from vla.policies.spec import RobotSpec

TOLERANCE = 1e-4  # of actions in [-1, 1]
_EPISODE = 20  # steps of an episode that are compared
_TEXTS = ("pick up the red apple", "move left", "open the drawer", "push the block to the corner")
Source = Generator[tuple[Hashable, Observation], np.ndarray, None]


@dataclass(frozen=True)
class Agreement:
    """How far two policies agree."""

    observations: int  # number of compared observations
    source: str  # "benchmark NAME", or "random images"
    identical: float  # share of observations with equal plans and exactly equal actions
    same_plans: float  # share of observations with equal plans
    max_difference: float  # of actions in [-1, 1] (half the range of each dimension is 1)
    max_difference_robot: float  # of actions in robot units

    def within(self, tokens: bool) -> bool:
        """True if plans are equal and actions within ``TOLERANCE``; of tokens: exactly equal."""
        exact = self.identical == 1 if tokens else self.max_difference <= TOLERANCE
        return self.same_plans == 1 and exact

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.observations} observations ({self.source}): plans equal in "
            f"{100 * self.same_plans:.1f} %, plans and actions exactly equal in "
            f"{100 * self.identical:.1f} %, largest difference of actions in [-1, 1]: "
            f"{self.max_difference:.2g}"
        )


def compare(reference: Any, candidate: Any, observations: int) -> Agreement:
    """Both policies on consecutive observations; the actions of ``reference`` are executed.

    Args:
        reference, candidate: policies bound to one robot.
        observations: at least 1.
    """
    spec: RobotSpec = reference.spec
    source, name = _source(spec)
    runners = [PolicyRunner(policy) for policy in (reference, candidate)]
    low, high = np.array(spec.action_space.low), np.array(spec.action_space.high)
    half = np.where(np.isfinite(high - low) & (high > low), (high - low) / 2, 1.0)
    same, same_plans, largest, largest_robot = 0, 0, 0.0, 0.0
    key, observation = next(source)
    for n in range(observations):
        found = []
        for runner in runners:
            torch.manual_seed(n)  # the noise of a flow head
            chunks, plans = runner.predict([key], [observation])
            found.append((chunks[0], plans[0]))
        (ours, plan), (theirs, other) = found
        difference = np.abs(ours.astype(np.float64) - theirs)
        largest = max(largest, float((difference / half).max()))
        largest_robot = max(largest_robot, float(difference.max()))
        same_plans += plan == other
        same += plan == other and bool((difference == 0).all())
        key, observation = source.send(ours[0])
    source.close()
    shares = same / observations, same_plans / observations
    return Agreement(observations, name, *shares, largest, largest_robot)


def _source(spec: RobotSpec) -> tuple[Source, str]:
    """Observations of the benchmark in which the data was recorded, or random ones."""
    if spec.benchmark:
        try:
            benchmark = open_benchmark(spec.benchmark, spec.cameras)
        except (ImportError, ConfigError):  # an extra or a plug-in of the training machine
            return _random(spec), "random images"
        return _episodes(benchmark), f"benchmark {benchmark.name}"
    return _random(spec), "random images"


def _episodes(benchmark: Any) -> Source:
    """The first steps of episodes of all tasks in turn; the actions that are sent are executed."""
    tasks = benchmark.default_tasks()
    for episode in count():
        env = benchmark.make_env(tasks[episode % len(tasks)])
        observation, _ = env.reset(seed=SEED + episode)
        for _ in range(_EPISODE):
            action = yield episode, observation
            observation, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                break
        env.close()


def _random(spec: RobotSpec) -> Source:
    """Images of random squares with noise, texts in turn, and states like those of the data."""
    generator = np.random.default_rng(0)
    height, width = (side or 64 for side in spec.image_size)
    statistics = spec.statistics.get("state") or {}
    for episode in count():
        images = {}
        for camera in spec.cameras:
            squares = generator.integers(0, 256, (8, 8, 3))
            rows, columns = np.arange(height) * 8 // height, np.arange(width) * 8 // width
            noise = generator.integers(-20, 20, (height, width, 3))
            images[camera] = (squares[rows][:, columns] + noise).clip(0, 255).astype(np.uint8)
        observation = {"images": images, "instruction": _TEXTS[episode % len(_TEXTS)]}
        if spec.state_dim:
            zeros, ones = np.zeros(spec.state_dim), np.ones(spec.state_dim)
            mean, std = statistics.get("mean", zeros), statistics.get("std", ones)
            observation["state"] = generator.normal(mean, std).astype(np.float32)
        yield episode // 2, observation
