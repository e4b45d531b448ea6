"""BabyAI (arXiv 1810.08272): instruction following in MiniGrid, with its scripted bot."""

from __future__ import annotations

import contextlib
import io
from importlib.metadata import version
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from vla.benchmarks.gym import GymBenchmark, GymTask
from vla.benchmarks.gym_make import require
from vla.config import register
from vla.errors import ConfigError

LEVELS = ("GoToObj", "GoToRedBall", "GoToLocal", "PickupLoc", "OpenDoor")
_WRAPPERS = {"agent": "RGBImgPartialObsWrapper", "room": "RGBImgObsWrapper"}


@register("benchmark", "babyai")
class BabyAI(GymBenchmark):
    """Levels of BabyAI: images, the mission as instruction, one of seven actions at each step.

    Raises:
        ConfigError: the package minigrid is missing, or has no such level; or an option is out of
            range.
    """

    name = "babyai"

    def __init__(
        self,
        levels: tuple[str, ...] = LEVELS,  # names without "BabyAI-" and "-v0"
        view: Literal["agent", "room"] = "agent",  # the 7 x 7 tiles ahead, or the whole room
        tile_size: int = 8,  # side of a tile in the images, px, 1 to 64
        *,
        policy_cameras: tuple[str, ...] = (),
    ) -> None:
        require("minigrid", "minigrid")
        if not levels:
            raise ConfigError(f"benchmark.levels: expected some of {', '.join(LEVELS)}")
        if not 1 <= tile_size <= 64:
            raise ConfigError(f"benchmark.tile_size: expected 1 to 64, got {tile_size}")
        wrapper = f"minigrid.wrappers:{_WRAPPERS[view]}"
        super().__init__(
            _id(levels[0]),
            wrappers=[f"{__name__}:Quiet", {"wrapper": wrapper, "tile_size": tile_size}],
            tasks={name: GymTask(id=_id(name)) for name in levels},
            success_reward=1e-6,  # a reward is only given at the end of a solved episode
            expert=f"{__name__}:Bot",
            policy_cameras=policy_cameras,
        )

    def hold_action(self, last: np.ndarray | None) -> np.ndarray:
        """The action "done", which changes nothing."""
        return np.array(self.action_space.high, np.float32)

    def facts(self) -> dict[str, str]:
        """Version of the simulator."""
        return {"minigrid": version("minigrid")}


def _id(level: str) -> str:
    return f"minigrid:BabyAI-{level}-v0"


class Quiet(gym.Wrapper[Any, Any, Any, Any]):
    """Drops what MiniGrid prints while it draws a level."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """As in gymnasium."""
        with contextlib.redirect_stdout(io.StringIO()):
            return self.env.reset(seed=seed, options=options)


class Bot:
    """MiniGrid's scripted bot, for one episode of any of its BabyAI levels.

    It has no plan for some states, and raises an exception then. From there on nothing is done, so
    that the episode fails.
    """

    def __init__(self) -> None:
        self.bot: Any = None
        self.last: Any = None
        self.is_lost = False

    def __call__(self, env: Any, observation: Any) -> int:
        """The bot's next action (0 to 6). It reads the state of the simulator."""
        if self.bot is None:
            from minigrid.utils.baby_ai_bot import BabyAIBot

            self.bot = BabyAIBot(env.unwrapped)
        if not self.is_lost:
            try:
                self.last = self.bot.replan(self.last)
            except Exception:
                self.is_lost, self.last = True, env.unwrapped.actions.done
        return int(self.last)
