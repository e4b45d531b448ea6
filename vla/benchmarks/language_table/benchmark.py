"""Language-Table as a benchmark, by the protocol of its own evaluation script."""

from __future__ import annotations

import csv
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from vla.benchmarks.base import Benchmark, Expert, Published, Task
from vla.benchmarks.language_table.checkout import find_checkout, load_simulator, revision
from vla.benchmarks.language_table.env import BOUND, HEIGHT, RATE_HZ, LanguageTableEnv
from vla.config import register
from vla.errors import ConfigError
from vla.types import ActionSpace

MAX_STEPS = 200
CAMERA = "rgb"
# Task, as the evaluation script of the checkout names it -> module and class of its reward.
REWARDS = {
    "blocktoblock": "block2block:BlockToBlockReward",
    "blocktoabsolutelocation": "block2absolutelocation:BlockToAbsoluteLocationReward",
    "blocktoblockrelativelocation": (
        "block2block_relative_location:BlockToBlockRelativeLocationReward"
    ),
    "blocktorelativelocation": "block2relativelocation:BlockToRelativeLocationReward",
    "separate": "separate_blocks:SeparateBlocksReward",
}


@register("benchmark", "language_table")
class LanguageTable(Benchmark):
    """Five reward families with 8 blocks; the environment draws the instruction of an episode.

    The group "average" is the mean over the families. The expert is the checkout's RRT oracle.

    Raises:
        ConfigError: no checkout, a missing package, an option out of range, or a policy with
            several cameras.
    """

    name = "language_table"
    action_space = ActionSpace(
        ("x", "y"), ("m", "m"), (-BOUND,) * 2, (BOUND,) * 2, rate_hz=RATE_HZ, relative=("x", "y")
    )
    episodes, is_heavy = 50, True

    def __init__(
        self,
        # Folder of the checkout of github.com/google-research/language-table; empty: that of the
        # environment variable LANGUAGE_TABLE.
        checkout: str = "",
        height: int = HEIGHT,  # of the image, px, 36 to 720 (180 as published); its width is 16/9
        max_steps: int = MAX_STEPS,  # control steps of an episode, 1 to 200
        *,
        policy_cameras: tuple[str, ...] = (),  # the policy's camera, which names the image
    ) -> None:
        if not 36 <= height <= 720:
            raise ConfigError(f"benchmark.height: expected 36 to 720, got {height}")
        if not 1 <= max_steps <= MAX_STEPS:
            raise ConfigError(f"benchmark.max_steps: expected 1 to {MAX_STEPS}, got {max_steps}")
        if len(policy_cameras) > 1:
            raise ConfigError(
                f"{self.name} has one camera; the policy uses {', '.join(policy_cameras)}"
            )
        self.folder = find_checkout(checkout)
        self.height, self.max_steps = height, max_steps
        self.camera = policy_cameras[0] if policy_cameras else CAMERA

    def tasks(self) -> list[Task]:
        """The five families, in the order of the evaluation script."""
        return [Task(name, group="average") for name in REWARDS]

    def make_env(self, task: Task) -> gym.Env[Any, Any]:
        """The environment of one family.

        Raises:
            ConfigError: the checkout cannot be imported.
        """
        simulator = load_simulator(self.folder, tuple(REWARDS.values()))
        reward, family = simulator.rewards[REWARDS[task.id]], list(REWARDS).index(task.id)
        return LanguageTableEnv(simulator, reward, family, self.camera, self.height, self.max_steps)

    def hold_action(self, last: np.ndarray | None) -> np.ndarray:
        """No movement."""
        return np.zeros(2, np.float32)

    def expert(self, task: Task) -> Expert:
        """The oracle, which reads the positions of the blocks."""

        def act(env: gym.Env[Any, Any], observation: dict[str, Any]) -> np.ndarray:
            simulated: Any = env.unwrapped
            action: np.ndarray = simulated.expert_action()
            return action

        return act

    def facts(self) -> dict[str, str]:
        """Image size and versions of the simulator."""
        return {
            "images": f"{round(self.height * 16 / 9)} x {self.height} px",
            "language-table": revision(self.folder),
            "pybullet": version("pybullet"),
        }

    def published(self) -> list[Published]:
        """Rows of RT-2's table of Language-Table in simulation."""
        with (Path(__file__).parent / "published.csv").open(encoding="utf-8", newline="") as file:
            return [
                Published(row["model"], {"average": float(row["average"])}, row["source"])
                for row in csv.DictReader(file)
            ]
