"""A data source with absolute joint targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from conftest import TINY_POLICY

from vla.config import check
from vla.data.config import DataConfig, WindowConfig
from vla.data.images import encode_image
from vla.data.source import Source
from vla.policies.base import BasePolicy
from vla.policies.checkpoint import load_policy
from vla.training.run import RunConfig, train
from vla.types import ActionSpace, Episode


def arm_config(folder: Path, window: WindowConfig) -> DataConfig:
    """One data set with relative actions."""
    return DataConfig({"arm": str(folder)}, {"arm": 1.0}, window, relative=("arm",))


def train_arm(folder: Path, head: str) -> BasePolicy:
    """A policy with relative actions after one step on packed data in ``folder/arm``."""
    config = {
        "policy": TINY_POLICY | {"head": {"name": head}},
        "data": {
            "datasets": {"arm": str(folder / "arm")},
            "sampling_weights": {"arm": 1.0},
            "window": {"horizon": 3},
            "relative": ["arm"],
            "shuffle": 20,
        },
        "output_dir": str(folder / "run"),
        "train": {
            "steps": 1,
            "batch_size": 4,
            "val_every": 1,
            "save_every": 1,
        },
        "trainer": {"accelerator": "cpu"},
    }
    return load_policy(train(check(config, RunConfig, ""), progress=False))


class Arm(Source):
    """Joint targets a constant step ahead of the joints, and a gripper."""

    action_space = ActionSpace(
        ("elbow", "wrist", "grip"),
        ("rad", "rad", ""),
        (-9.0, -9.0, 0.0),
        (9.0, 9.0, 1.0),
        ("grip",),
    )

    def __init__(self, state: tuple[str, ...] = ("wrist", "elbow")) -> None:
        self.state_names = state

    def __len__(self) -> int:
        return 8

    def describe(self) -> dict[str, Any]:
        return {"name": "arm", "state": self.state_names}

    def __getitem__(self, index: int) -> Episode:
        rng = np.random.default_rng(index)
        state = (rng.uniform(-1, 1, 2) + np.arange(10)[:, None] * [0.1, 0.2]).astype(
            np.float32
        )  # wrist, elbow
        actions = np.stack([state[:, 1] + 0.2, state[:, 0] + 0.1, np.arange(10) % 2], 1).astype(
            np.float32
        )
        frames = [encode_image(np.full((32, 32, 3), 20 * t, np.uint8)) for t in range(10)]
        return Episode(f"{index:07d}", "stage_runs", {"top": frames}, actions, state=state)
