"""Sources for ``vla pack``: demonstrations on the tabletop, and its web data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from vla.benchmarks.tabletop.layouts import LAYOUTS, check_layout
from vla.benchmarks.tabletop.recorder import record_episode
from vla.benchmarks.tabletop.scene import SceneConfig
from vla.benchmarks.tabletop.web.config import WebConfig
from vla.benchmarks.tabletop.web.questions import make_web_sample
from vla.config import register
from vla.data.source import Source
from vla.types import Episode, WebSample


@register("source", "tabletop")
class TabletopSource(Source):
    """Episodes of the tabletop's expert; episode ``i`` depends on ``seed`` and ``i`` alone."""

    def __init__(
        self,
        scene: SceneConfig,  # skills and items of the scenes
        episodes: int,  # number of episodes, at least 1
        seed: int = 0,  # seed of the data set, at least 0
        cameras: tuple[str, ...] = ("top",),  # recorded cameras: top, wrist
        size: int = 64,  # side of the images, px, at least 16
        layout: str = "rt2",  # action layout: rt2 (8 dimensions) or rt1 (11 dimensions)
        # Standard deviation of the disturbance of the executed command, m; 0: none.
        noise: float = 0.012,
        # Further instructions per episode that the expert labels with actions, at least 0.
        alternatives: int = 3,
        # The arm reaches 12 cm around a base that moves; the expert switches between the modes
        # arm, base and terminate. Needs the layout rt1.
        mobile_base: bool = False,
    ) -> None:
        check_layout(layout, mobile_base)
        self.scene, self.episodes, self.seed = scene, episodes, seed
        self.cameras, self.size, self.layout = tuple(cameras), size, layout
        self.noise, self.alternatives, self.mobile_base = noise, alternatives, mobile_base
        self.action_space, self.image_size = LAYOUTS[layout], (size, size)

    def __len__(self) -> int:
        return self.episodes

    def __getitem__(self, index: int) -> Episode:
        return record_episode(
            self.scene,
            self.seed,
            index,
            self.cameras,
            self.size,
            self.layout,
            self.noise,
            self.alternatives,
            self.mobile_base,
        )

    def benchmark(self) -> dict[str, Any]:
        """The configuration of the benchmark in which the episodes are recorded."""
        return {
            "name": "tabletop",
            "scene": asdict(self.scene),
            "cameras": self.cameras,
            "size": self.size,
            "layout": self.layout,
            # Only if true: packed data of older versions has no such key.
            **({"mobile_base": True} if self.mobile_base else {}),
        }

    def describe(self) -> dict[str, Any]:
        """All options."""
        return self.benchmark() | {
            "episodes": self.episodes,
            "seed": self.seed,
            "noise": self.noise,
            "alternatives": self.alternatives,
        }


@register("source", "web")
class WebSource(Source):
    """Composed images with questions; sample ``i`` depends on ``seed`` and ``i`` alone."""

    def __init__(
        self,
        web: WebConfig,  # images and questions
        samples: int,  # number of samples (images), at least 1
        seed: int = 0,  # seed of the data set, at least 0
    ) -> None:
        self.web, self.samples, self.seed = web, samples, seed

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> WebSample:
        return make_web_sample(self.web, self.seed, index)

    def describe(self) -> dict[str, Any]:
        """All options."""
        return {"name": "web", "web": asdict(self.web), "samples": self.samples, "seed": self.seed}
