"""A small world in which images and instruction determine the actions, with plantable faults.

A dot moves to the goal that the instruction names. The camera "front" shows the dot; the brightness
of "wrist" grows near the goal, where the gripper closes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vla.data.images import encode_image
from vla.data.manifest import load_manifest
from vla.data.mapping import Mapping
from vla.data.pack import pack
from vla.data.robot import RobotSource
from vla.data.source import Source
from vla.diagnose.subject import Subject
from vla.policies.spec import RobotSpec
from vla.types import ActionSpace, Episode

GOALS = {
    "go to the left": (-0.8, 0.0),
    "go to the right": (0.8, 0.0),
    "go up": (0.0, 0.8),
    "go down": (0.0, -0.8),
}
SIDE, NEAR = 32, 0.35
FAULTS = ("gripper", "video", "statistics", "cameras", "instructions", "action type")


def front(position: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE, 3) with a soft white dot."""
    grid = np.linspace(-1, 1, SIDE)
    square = (grid[None] - position[0]) ** 2 + (grid[:, None] - position[1]) ** 2
    return np.repeat((20 + 230 * np.exp(-square / 0.06))[..., None], 3, 2).astype(np.uint8)


def wrist(distance: float) -> np.ndarray:
    """(SIDE, SIDE, 3), brighter near the goal, with a fixed dark stripe."""
    image = np.full((SIDE, SIDE, 3), 30 + 200 * np.exp(-2 * distance), np.uint8)
    image[:, :6] = (60, 0, 0)
    return image


def expert(position: np.ndarray, goal: Sequence[float]) -> np.ndarray:
    """(3,) movement in x and y, and the gripper: 1 closed."""
    away = np.array(goal) - position
    return np.array([*0.12 * np.tanh(2.5 * away), np.hypot(*away) < NEAR])


def episode(index: int, steps: int = 24) -> dict[str, Any]:
    """State (x, y, opening), actions and images of one episode."""
    rng = np.random.default_rng(index)
    text = list(GOALS)[index % len(GOALS)]
    position, opening = rng.uniform(-0.9, 0.9, 2), 1.0
    out: dict[str, Any] = {"text": text, "state": [], "action": [], "front": [], "wrist": []}
    for _ in range(steps):
        action = expert(position, GOALS[text])
        out["state"].append([*position, opening])
        out["action"].append(action)
        out["front"].append(front(position))
        out["wrist"].append(wrist(float(np.hypot(*(np.array(GOALS[text]) - position)))))
        position = position + action[:2] + rng.normal(0, 0.03, 2)
        opening = 0.5 * opening + 0.5 * (1 - action[2])
    return out | {"state": np.array(out["state"]), "action": np.array(out["action"])}


def planted(recorded: dict[str, Any], fault: str, texts: Sequence[str], index: int) -> None:
    """Change one episode in place as the fault does."""
    if fault == "gripper":
        recorded["action"][:, 2] = 1 - recorded["action"][:, 2]
    elif fault == "video":  # the images are 4 rows late
        for camera in ("front", "wrist"):
            recorded[camera] = [recorded[camera][0]] * 4 + recorded[camera][:-4]
    elif fault == "cameras":
        recorded["front"], recorded["wrist"] = recorded["wrist"], recorded["front"]
    elif fault == "instructions":
        recorded["text"] = texts[index]
    elif fault == "action type":
        recorded["action"][:, :2] += recorded["state"][:, :2]
    elif fault == "statistics":
        recorded["action"][:, :2] *= 2
        recorded["state"][:, :2] *= 2


def recordings(episodes: int, fault: str) -> list[dict[str, Any]]:
    """Episodes of the world with a fault planted in all of them."""
    texts = [list(GOALS)[i % len(GOALS)] for i in range(episodes)]
    shuffled = np.random.default_rng(5).permutation(texts).tolist()
    made = [episode(index) for index in range(episodes)]
    for index, recorded in enumerate(made):
        planted(recorded, fault, shuffled, index)
    return made


class World(Source):
    """The world in memory."""

    image_size, state_names = (SIDE, SIDE), ("x", "y", "opening")
    action_space = ActionSpace(
        ("x", "y", "gripper"),
        ("m", "m", ""),
        (-math.inf, -math.inf, 0.0),
        (math.inf, math.inf, 1.0),
        ("gripper",),
        rate_hz=10.0,
    )

    def __init__(self, fault: str = "", episodes: int = 24) -> None:
        self.made, self.fault = recordings(episodes, fault), fault

    def __len__(self) -> int:
        return len(self.made)

    def __getitem__(self, index: int) -> Episode:
        made = self.made[index]
        return Episode(
            f"episode_{index:03d}",
            made["text"],
            {c: [encode_image(i, "ppm") for i in made[c]] for c in ("front", "wrist")},
            made["action"].astype(np.float32),
            state=made["state"].astype(np.float32),
        )

    def describe(self) -> dict[str, Any]:
        return {"name": "world", "fault": self.fault}


def pack_world(out: Path, fault: str = "", episodes: int = 24) -> Path:
    """The world, packed from memory; a quarter is held out."""
    pack(World(fault, episodes), out, shard_size=6, val_fraction=0.25, progress=False)
    return out


def write_world(root: Path, fault: str = "", episodes: int = 24) -> Path:
    """The world as a recorded data set in the folder format."""
    for index, recorded in enumerate(recordings(episodes, fault)):
        folder = root / f"episode_{index:03d}"
        for camera in ("front", "wrist"):
            (folder / camera).mkdir(parents=True)
            for t, image in enumerate(recorded[camera]):
                Image.fromarray(image).save(folder / camera / f"{t:03d}.png", compress_level=1)
        (folder / "instruction.txt").write_text(recorded["text"])
        head = "action.x,action.y,action.gripper,state.x,state.y,state.opening"
        rows = np.concatenate([recorded["action"], recorded["state"]], 1)
        lines = [",".join(f"{v:.6f}" for v in row) for row in rows]
        (folder / "steps.csv").write_text("\n".join([head, *lines]))
    (root / "meta.json").write_text('{"fps": 10, "robot": "dot"}')
    return root


def pack_recorded(raw: Path, out: Path, **mapping: Any) -> Path:
    """A recorded world, packed without loss of image quality."""
    options: dict[str, Any] = {
        "size": SIDE,
        "image_format": "ppm",
        "binary": {"gripper": 0.5},
    } | mapping
    source = RobotSource(str(raw), Mapping(**options))
    pack(source, out, shard_size=6, val_fraction=0.25, progress=False)
    return out


class DotPolicy:
    """The expert, from images and instruction; the options are faults of a policy in use."""

    robot = "dot"

    def __init__(
        self,
        data: Path,
        relearned: str = "",  # the fault of the data on which it was trained
        follows: bool = True,  # uses the instruction
        sees: bool = True,  # uses the images
    ) -> None:
        manifest = load_manifest(data)
        assert manifest.action_space is not None
        self.spec = RobotSpec(
            manifest.action_space,
            manifest.cameras,
            manifest.image_size,
            statistics=manifest.statistics,
            state_dim=3,
        )
        self.relearned, self.follows, self.sees = relearned, follows, sees

    def uses_previous_plan(self) -> bool:
        return False

    def samples(self) -> bool:
        return False

    def uses_drafts(self) -> bool:
        return False

    def predict(
        self, images: torch.Tensor, instructions: Sequence[str], state_BTP: Any = None
    ) -> tuple[np.ndarray, list[str]]:
        views = images[:, :, -1].float().mean(2).numpy()  # (B, V, H, W)
        order = [self.spec.cameras.index(c) for c in ("front", "wrist")]
        seen = views[:, order[::-1] if self.relearned == "cameras" else order]
        grid, out = np.linspace(-1, 1, SIDE), []
        for (dot, near), text, state in zip(seen, instructions, state_BTP[:, -1], strict=True):
            weight = np.clip(dot - 40, 0.1, None) if self.sees else np.ones_like(dot)
            position = np.array([(weight.sum(a) * grid).sum() for a in (0, 1)]) / weight.sum()
            goal = GOALS.get(text if self.follows else "go up", (0.0, 0.0))
            action = expert(position, goal)
            action[2] = near[:, 10:].mean() > 30 + 200 * np.exp(-2 * NEAR)
            if self.relearned == "gripper":
                action[2] = 1 - action[2]
            if self.relearned == "action type":
                action[:2] += state[:2].numpy()
            out.append(action)
        return np.array(out, np.float32)[:, None], [""] * len(out)


def subject_of(policy: Any, data: Path, training: tuple[Path, ...] = ()) -> Subject:
    """A policy and data, as ``open_subject`` gives them."""
    return Subject(policy, Path("policy"), data, load_manifest(data), training)
