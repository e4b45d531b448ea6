"""What can be packed without any files of yours: the tabletop's expert, and the offline web."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from vla.config import register
from vla.schema import ActionSpace, Episode, WebSample
from vla.sim.layouts import LAYOUTS
from vla.sim.record import record_episode
from vla.sim.scene import SceneConfig
from vla.web.questions import WebConfig, make_web_sample


@register("source", "tabletop")
class TabletopSource:
    """Expert episodes on the tabletop; episode ``i`` depends on ``seed`` and ``i`` alone.

    size: px of every camera; noise: m, see ``record_episode``; alternatives: further labelled instructions an episode.
    """

    def __init__(
        self, scene: SceneConfig, episodes: int, seed: int = 0, cameras: tuple[str, ...] = ("top",), size: int = 64,
        layout: str = "rt2", noise: float = 0.012, alternatives: int = 3,
    ) -> None:  # fmt: skip
        self.scene, self.episodes, self.seed, self.cameras, self.size = scene, episodes, seed, tuple(cameras), size
        self.layout, self.noise, self.alternatives = layout, noise, alternatives
        self.action_space: ActionSpace | None = LAYOUTS[layout]

    def __len__(self) -> int:
        return self.episodes

    def __getitem__(self, index: int) -> Episode:
        return record_episode(self.scene, self.seed, index, self.cameras, self.size, self.layout, self.noise, self.alternatives)

    def describe(self) -> dict[str, Any]:
        """All arguments."""
        return {
            "name": "tabletop", "scene": asdict(self.scene), "episodes": self.episodes, "seed": self.seed, "cameras": self.cameras,
            "size": self.size, "layout": self.layout, "noise": self.noise, "alternatives": self.alternatives,
        }  # fmt: skip


@register("source", "web")
class WebSource:
    """Composed pictures with questions; sample ``i`` depends on ``seed`` and ``i`` alone."""

    action_space: ActionSpace | None = None

    def __init__(self, web: WebConfig, samples: int, seed: int = 0) -> None:
        self.web, self.samples, self.seed = web, samples, seed

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> WebSample:
        return make_web_sample(self.web, self.seed, index)

    def describe(self) -> dict[str, Any]:
        """All arguments."""
        return {"name": "web", "web": asdict(self.web), "samples": self.samples, "seed": self.seed}
