"""PushT (arXiv 2303.04137): a round finger pushes a T-shaped block onto a T-shaped target."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from vla.benchmarks.base import Published
from vla.benchmarks.gym import GymBenchmark, GymTask
from vla.benchmarks.gym_make import require
from vla.config import register

# Model, success in %, source and mean score.
_PUBLISHED = (
    ("Diffusion Policy, original weights", 64.2, "LeRobot, 500 episodes; mean score 0.957"),
    ("Diffusion Policy, LeRobot", 63.8, "LeRobot, 500 episodes; mean score 0.959"),
    ("lerobot/diffusion_pusht", 65.4, "its model card, 500 episodes"),
)


@register("benchmark", "pusht")
class PushT(GymBenchmark):
    """``gym_pusht/PushT-v0`` as published: image and finger position, absolute target position.

    10 Hz, 300 steps; an episode succeeds, and ends, when more than 95 % of the target is covered.
    Results have ``score``, the published measure: the largest overlap of an episode divided by
    0.95, at most 1; and ``overlap``, the largest overlap itself.

    Raises:
        ConfigError: the package gym-pusht is missing.
    """

    name = "pusht"

    def __init__(
        self,
        size: int = 96,  # side of the images, px
        instruction: str = "push the T-shaped block onto the T-shaped target",  # of every episode
        *,
        policy_cameras: tuple[str, ...] = (),
    ) -> None:
        require("gym_pusht", "pusht")
        super().__init__(
            "gym_pusht:gym_pusht/PushT-v0",
            instruction,
            options={
                "obs_type": "pixels_agent_pos",
                "observation_width": size,
                "observation_height": size,
            },
            tasks={"pusht": GymTask(group="success")},
            scores={"score": "max reward", "overlap": "max coverage"},
            policy_cameras=policy_cameras,
        )

    def hold_action(self, last: np.ndarray | None) -> np.ndarray:
        """The last target; before the first action the middle of the table."""
        return np.full(2, 256.0, np.float32) if last is None else last

    def facts(self) -> dict[str, str]:
        """Versions of the simulator."""
        return {name: version(name) for name in ("gym-pusht", "pymunk")}

    def published(self) -> list[Published]:
        """Success of policies that were trained on the same human demonstrations."""
        return [Published(model, {"success": share}, text) for model, share, text in _PUBLISHED]
