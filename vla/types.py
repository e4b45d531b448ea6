"""Data that passes between the parts of the package, and the legend of tensor shapes.

The suffix of a tensor's name gives its dimensions, for example ``images_BVTCHW``:

B  rows of a batch, one observation each
V  camera views; in ``allowed_V`` and ``known_V`` the tokens of the vocabulary
T  frames of history, or control steps of an episode
H  action horizon: steps of an action chunk; in ``CHW`` and ``HWC`` the image height
A  action dimensions
P  dimensions of the measured state
K  texts of a batch (instructions or questions); several may share one row
M  target items of a loss: tokens, or action dimensions
S  text tokens
N  image tokens
L  positions of a decoder's sequence: image tokens and text tokens
Q  learned queries after a text
D  width of embeddings
C  image channels
W  image width
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

if TYPE_CHECKING:  # processes that only run environments do without it
    import torch

# How an image is brought to a size, see ``vla.utils.resize``. stretch: the whole image; crop: its
# centre; pad: the whole image on black.
ImageFit = Literal["stretch", "crop", "pad"]
# How an answer is compared with the expected one, see ``vla.evaluation.answers``. words: equal
# words, and a close location at the end; answer: as VQA v2 does; caption: n-grams; place: bins.
Metric = Literal["words", "answer", "caption", "place"]

MAX_BOUND = 1e9  # of actions in robot units; float32 has no useful steps above
_CONVENTIONS = ("relative", "absolute", "rotation")
_KINDS = ("binary", "integer", "relative", "absolute")  # fields with names of dimensions


@dataclass(frozen=True)
class ActionSpace:
    """Names, units and bounds of the action dimensions of one robot, in order."""

    names: tuple[str, ...]  # unique name of every dimension
    units: tuple[str, ...]  # unit of every dimension, for example "m"
    low: tuple[float, ...]  # lower bounds in these units
    high: tuple[float, ...]  # upper bounds in these units
    # Names of the dimensions with only two values, 0 and 1 (gripper, terminate). They are
    # classified, never scaled by dataset statistics.
    binary: tuple[str, ...] = ()
    rate_hz: float = 5.0  # control rate: actions per second
    # Names of the dimensions whose values are whole numbers, for example a mode from 0 to 2. They
    # are scaled by their bounds, and a predicted value is always a whole number.
    integer: tuple[str, ...] = ()
    # Conventions that nothing computes with; a server states them to its clients. Names of the
    # dimensions that are movements (relative) and targets (absolute); in neither: not stated.
    relative: tuple[str, ...] = field(default=(), compare=False)
    absolute: tuple[str, ...] = field(default=(), compare=False)
    rotation: str = field(default="", compare=False)  # for example "euler_xyz"; empty: not stated

    def __post_init__(self) -> None:
        for name in ("names", "units", "low", "high", *_KINDS):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if (
            not self.names
            or len({len(self.names), len(self.units), len(self.low), len(self.high)}) != 1
        ):
            raise ValueError(
                "action space: names, units, low and high must have the same, non-zero length"
            )
        for kind in _KINDS:
            unknown = [n for n in getattr(self, kind) if n not in self.names]
            if unknown:
                raise ValueError(
                    f"action space: {kind} dims {unknown} are not among the names "
                    f"{list(self.names)}"
                )
        if both := [n for n in self.integer if n in self.binary]:
            raise ValueError(f"action space: {both} are binary and integer; binary is enough")
        if both := [n for n in self.relative if n in self.absolute]:
            raise ValueError(f"action space: {both} are relative and absolute; name one")
        for name, low, high in zip(self.names, self.low, self.high, strict=True):
            if any(math.isnan(b) or MAX_BOUND < abs(b) < math.inf for b in (low, high)):
                raise ValueError(
                    f"action space: the bounds of {name!r} are {low:g} and {high:g}; expected "
                    f"numbers up to {MAX_BOUND:g}, or infinity for no bound"
                )
            if name in self.integer and any(math.isfinite(b) and b % 1 for b in (low, high)):
                raise ValueError(
                    f"action space: the bounds {low:g} and {high:g} of the integer dim {name!r} "
                    "must be whole numbers"
                )
        if any(lo >= hi for lo, hi in zip(self.low, self.high, strict=True)):
            raise ValueError("action space: every low must be below its high")

    @property
    def dim(self) -> int:
        """Number of action dimensions."""
        return len(self.names)

    def finite_bounds(self, far: float = 10.0) -> tuple[np.ndarray, np.ndarray]:
        """Bounds (A,), with ``far`` from 0 or from the other bound instead of infinity."""
        low, high = np.array(self.low), np.array(self.high)
        return (
            np.where(np.isinf(low), np.minimum(high, 0) - far, low),
            np.where(np.isinf(high), np.maximum(low, 0) + far, high),
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields as lists and numbers, for JSON; without conventions that are not stated."""
        known = {k: v for k, v in asdict(self).items() if v or k not in _CONVENTIONS}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in known.items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ActionSpace:
        """Inverse of ``to_dict``."""
        return cls(**data)


@dataclass(frozen=True)
class Leftover:
    """What is left of an action chunk at the observation from which the next one is predicted."""

    actions_HA: np.ndarray  # in robot units, from the step of the observation on; H is any length
    frozen: int  # the first of them, 1 to H, which are executed whatever the next chunk is


@dataclass
class Episode:
    """One recorded robot episode of T control steps."""

    key: str  # unique within its data set
    instruction: str  # of the first step that has one
    images: dict[str, list[bytes]]  # camera -> T encoded images (JPEG or PPM)
    actions: np.ndarray  # (T, A) float32 in robot units
    state: np.ndarray | None = None  # (T, P) float32 measured state in robot units
    rewards: np.ndarray | None = None  # (T,) float32
    plans: list[str] = field(default_factory=list)  # T texts: the next subtask; or empty
    # Further instructions (K texts) for the same images, with their own expert actions.
    alternatives: list[str] = field(default_factory=list)
    alternative_plans: list[list[str]] = field(default_factory=list)  # K lists of T texts
    alternative_actions: np.ndarray | None = None  # (T, K, A) float32 in robot units
    alternative_mask: np.ndarray | None = None  # (T, K) bool: True where the action is valid
    robot: str = ""  # name of the robot
    fps: float = 5.0  # control steps per second
    source: str = ""  # format or simulator that the episode comes from
    info: dict[str, Any] = field(default_factory=dict)  # further facts, kept in the manifest
    # T texts if the instruction changes within the episode; a step with an empty text is not
    # trained. No texts: ``instruction`` at every step.
    instructions: list[str] = field(default_factory=list)
    split: str = ""  # recorded split: "train", "val"; empty: not recorded
    group: str = ""  # scene or operator; validation episodes are drawn from every group


@dataclass
class QA:
    """One question about an image and its answer."""

    question: str
    answer: str
    tests: str  # the skill that the question tests, for example "count"; results are listed by it
    needs_image: bool = True  # False: a question of general knowledge; the image is masked
    answers: list[str] = field(default_factory=list)  # of several people, for the evaluation
    # Earlier (question, answer) pairs of the conversation.
    turns: list[list[str]] = field(default_factory=list)
    metric: Metric = "words"  # how the answer is scored


@dataclass
class WebSample:
    """One image of the vision-language data, with questions and answers about it."""

    key: str  # unique within its data set
    image: bytes  # encoded JPEG or PPM
    qa: list[QA]
    split: str = ""  # recorded split: "train", "val"; empty: not recorded
    group: str = ""  # text from which validation samples are drawn evenly


@dataclass
class RobotBatch:
    """B observations of one robot with K instructions and the actions to learn."""

    robot: str  # name of the robot
    images_BVTCHW: torch.Tensor  # uint8
    instructions: list[str]  # K texts
    plans: list[str]  # K texts: the next subtask; empty where there is none
    actions_KHA: torch.Tensor  # float32 in robot units
    mask_KH: torch.Tensor  # bool; False past the end of the episode or of its instruction
    image_index_K: torch.Tensor  # row of the observation that each instruction belongs to
    sources: list[str]  # name of the data set of each of the B rows
    state_BTP: torch.Tensor | None = None  # float32 measured state in robot units


@dataclass
class WebBatch:
    """B images with K questions and answers."""

    images_BCHW: torch.Tensor  # uint8
    questions: list[str]  # K texts
    answers: list[str]  # K texts
    image_index_K: torch.Tensor  # row of the image that each question belongs to
    attend_image_K: torch.Tensor  # bool; False: the question's tokens do not attend to the image
    sources: list[str]  # name of the data set of each of the B rows
    # Earlier (question, answer) pairs of the K conversations; empty: none has any.
    turns: list[list[list[str]]] = field(default_factory=list)


@dataclass
class Batch:
    """Input of every policy: robot rows and web rows, without tokens or normalised pixels."""

    robots: list[RobotBatch] = field(default_factory=list)  # one part for each robot
    web: WebBatch | None = None
    # Repeated rows of a process that has one validation batch less than others. They do not count.
    is_filler: bool = False

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with every tensor contiguous on ``device``.

        Loaders leave images with channels last in memory, as the decoder wrote them.
        """
        return Batch(
            [_moved(r, device) for r in self.robots],
            None if self.web is None else _moved(self.web, device),
            self.is_filler,
        )

    @property
    def size(self) -> int:
        """Number of image rows, robot and web."""
        return sum(len(r.sources) for r in self.robots) + (len(self.web.sources) if self.web else 0)


_P = TypeVar("_P", RobotBatch, WebBatch)


def _moved(part: _P, device: torch.device | str) -> _P:
    import torch

    moved: dict[str, Any] = {
        k: v.to(device).contiguous() for k, v in vars(part).items() if isinstance(v, torch.Tensor)
    }
    return replace(part, **moved)
