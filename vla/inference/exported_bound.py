"""An exported policy in the place of a ``BoundPolicy``: evaluation and servers take either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla.errors import DataError
from vla.inference.exported import ExportedPolicy, load_exported
from vla.policies.bound import BoundPolicy
from vla.policies.checkpoint import load_policy, read_robot_specs


class ExportedBound:
    """The methods of ``BoundPolicy`` that ``PolicyRunner`` uses, on an exported policy."""

    policy = None  # no torch module

    def __init__(self, exported: ExportedPolicy) -> None:
        self.exported, self.robot = exported, exported.robot
        self.spec = read_robot_specs(exported.folder)[exported.robot]

    def uses_previous_plan(self) -> bool:
        """See ``BasePolicy.uses_previous_plan``."""
        return self.exported.uses_previous_plan()

    def samples(self) -> bool:
        """See ``BasePolicy.samples``."""
        return self.exported.samples()

    def uses_drafts(self) -> bool:
        """False: the loader reads one token at a time."""
        return False

    def uses_known_actions(self) -> bool:
        """False: the graphs take no known actions."""
        return False

    def predict(
        self, images_BVTCHW: torch.Tensor, instructions: list[str], **optional: Any
    ) -> tuple[np.ndarray, list[str]]:
        """See ``BasePolicy.predict``. The noise of a flow head is drawn by torch."""
        deviation = self.exported.decoding["start_deviation"]
        if deviation:
            shape = (len(instructions), self.spec.horizon, self.spec.action_space.dim)
            optional["start_BHA"] = (deviation * torch.randn(shape)).numpy()
        return self.exported.predict(images_BVTCHW.cpu().numpy(), instructions, **optional)

    def act(self, images: Any, instruction: Any, state: Any = None) -> np.ndarray:
        """See ``ExportedPolicy.act``."""
        return self.exported.act(images, instruction, state)


def open_policy(folder: Path, device: str = "auto", robot: str | None = None) -> Any:
    """A saved policy bound to a robot, or an exported policy as an ``ExportedBound``.

    Raises:
        DataError: neither is in the folder, or the exported policy is of another robot.
        ValueError: see ``BasePolicy.robot``.
    """
    if not (folder / "export.json").is_file():
        bound: BoundPolicy = load_policy(folder, device).robot(robot)
        return bound
    exported = load_exported(folder)
    if robot not in (None, exported.robot):
        raise DataError(f"{folder}: exported for the robot {exported.robot!r}, not {robot!r}")
    return ExportedBound(exported)
