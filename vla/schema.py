"""The things that flow through the line, and the legend of their shapes.

B batch rows (images), V camera views, T history or episode steps, H action horizon, A action dims, K segments (instructions or
questions; several may share one image), S text tokens, N image tokens, D width, C H W image channels, height, width.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch

ACTION_QUESTION = "what action should the robot take to {instruction}?"  # RT-2, arXiv 2307.15818 section 3.2


@dataclass(frozen=True)
class ActionSpace:
    """Names, units and bounds of one robot's action, in order.

    low, high: robot units; binary: names of dims that are decisions (0 or 1), never scaled by statistics; rate_hz: control rate.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    binary: tuple[str, ...] = ()
    rate_hz: float = 5.0

    def __post_init__(self) -> None:
        for name in ("names", "units", "low", "high", "binary"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.names or len({len(self.names), len(self.units), len(self.low), len(self.high)}) != 1:
            raise ValueError("action space: names, units, low and high must have the same, non-zero length")
        unknown = [n for n in self.binary if n not in self.names]
        if unknown:
            raise ValueError(f"action space: binary dims {unknown} are not among the names {list(self.names)}")
        if any(lo >= hi for lo, hi in zip(self.low, self.high, strict=True)):
            raise ValueError("action space: every low must be below its high")

    @property
    def dim(self) -> int:
        """A."""
        return len(self.names)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ActionSpace:
        """Inverse of ``to_dict``."""
        return cls(**data)


@dataclass
class Episode:
    """One robot episode.

    images: camera -> T encoded JPEGs; actions (T, A) float32 robot units; state (T, P) float32 or None; rewards (T,) float32;
    plans: T texts, what comes next in words (chain of thought), or none;
    alternatives: further instructions that the expert also labelled; alternative_actions (T, K, A) float32 and
    alternative_mask (T, K) bool say with what and where, alternative_plans K x T texts.
    """

    key: str
    instruction: str
    images: dict[str, list[bytes]]
    actions: np.ndarray
    state: np.ndarray | None = None
    rewards: np.ndarray | None = None
    plans: list[str] = field(default_factory=list)
    alternatives: list[str] = field(default_factory=list)
    alternative_plans: list[list[str]] = field(default_factory=list)
    alternative_actions: np.ndarray | None = None
    alternative_mask: np.ndarray | None = None
    robot: str = ""
    fps: float = 5.0
    source: str = ""
    info: dict[str, Any] = field(default_factory=dict)


@dataclass
class QA:
    """One question, its answer, what it tests, and whether the image is needed to answer."""

    question: str
    answer: str
    tests: str
    needs_image: bool = True


@dataclass
class WebSample:
    """One picture (encoded JPEG) with questions about it."""

    key: str
    image: bytes
    qa: list[QA]


@dataclass
class RobotBatch:
    """Rows of one robot. Segment k has instructions[k], plans[k] (may be empty), actions_KHA float32 in robot units, mask_KH bool (False past
    the episode's end) and the row owner_K of its images_BVTCHW uint8; state_BTP float32 or None; sources: name of every row's data set.
    """

    robot: str
    images_BVTCHW: torch.Tensor
    instructions: list[str]
    plans: list[str]
    actions_KHA: torch.Tensor
    mask_KH: torch.Tensor
    owner_K: torch.Tensor
    sources: list[str]
    state_BTP: torch.Tensor | None = None


@dataclass
class WebBatch:
    """Pictures images_BCHW uint8 with questions and answers, each about the row owner_K; sees_K bool (False: text only, the picture must not
    be looked at); sources as above."""

    images_BCHW: torch.Tensor
    questions: list[str]
    answers: list[str]
    owner_K: torch.Tensor
    sees_K: torch.Tensor
    sources: list[str]


@dataclass
class Batch:
    """What every policy gets: the rows of each robot, and web rows. It knows nothing of any model: no tokens, no normalised pixels."""

    robots: list[RobotBatch] = field(default_factory=list)
    web: WebBatch | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with every tensor on ``device``, and in the order of its dims there (loaders leave pictures as they were decoded, colours last)."""
        return Batch([_moved(r, device) for r in self.robots], None if self.web is None else _moved(self.web, device))

    @property
    def size(self) -> int:
        """Image rows, robot and web."""
        return sum(len(r.sources) for r in self.robots) + (len(self.web.sources) if self.web else 0)


_P = TypeVar("_P", RobotBatch, WebBatch)


def _moved(part: _P, device: torch.device | str) -> _P:
    moved: dict[str, Any] = {k: v.to(device).contiguous() for k, v in vars(part).items() if isinstance(v, torch.Tensor)}
    return replace(part, **moved)
