"""RobotSpec: the inputs, outputs and units of one robot of a policy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from vla.config.validation import check
from vla.errors import ConfigError
from vla.policies.execution import Execution
from vla.policies.spec_text import describe
from vla.types import ActionSpace, ImageFit

# Columns of ``vla.data.statistics.column_statistics``.
_COLUMNS = {"min", "q01", "q99", "max", "mean", "std", "quantiles"}
MAX_SIDE = 4096  # pixels of the longer side of an image
MAX_OBSERVATION = 2**30  # bytes of the images of one observation, all cameras and frames
MAX_RATE = 1e5  # Hz
_SIZES = {  # field -> smallest and largest number
    "history": (1, 256),
    "horizon": (1, 4096),
    "state_dim": (0, 65536),
    "cameras": (0, 64),
    "action_space": (1, 4096),
}


@dataclass
class RobotSpec:
    """Inputs and outputs of a policy for one robot; saved in ``robot_spec.json``."""

    # Names, units and bounds of the action dimensions, and the control rate.
    action_space: ActionSpace
    # Cameras in the order in which the policy gets their images.
    cameras: tuple[str, ...]
    # (height, width) of the training images in pixels; 0: unknown, images are not resized.
    image_size: tuple[int, int]
    # How the training images were brought to ``image_size``; done at run time too.
    image_fit: ImageFit = "stretch"
    # Frames that the policy gets, the current frame included; at least 1.
    history: int = 1
    # Actions that one policy call predicts; at least 1.
    horizon: int = 1
    # Statistics of the training actions and states in robot units, see ``vla.data.statistics``.
    statistics: dict[str, Any] = field(default_factory=dict)
    # Versions of the libraries that trained the policy.
    versions: dict[str, str] = field(default_factory=dict)
    # Configuration of the benchmark in which the data was recorded; empty: another source.
    benchmark: dict[str, Any] = field(default_factory=dict)
    # Numbers of the measured state that the policy needs at every frame; 0: no state.
    state_dim: int = 0
    # For each action dimension the state dimension that is subtracted from it before training and
    # added when the policy acts; -1: none. Empty: all actions are learned as they are.
    relative: tuple[int, ...] = ()
    # Execution of action chunks, unless the user of the policy chooses another.
    execution: Execution = field(default_factory=Execution)

    @property
    def learned_space(self) -> ActionSpace:
        """The action space in which the head is trained.

        A binary dimension that is learned as a difference has the values -1, 0 and 1. It is not
        binary in this space. In the same way a whole-number dimension is an ordinary one.
        """
        space = self.action_space
        changed = {n for n, k in zip(space.names, self.relative, strict=False) if k >= 0}
        binary, integer = (
            tuple(n for n in names if n not in changed) for names in (space.binary, space.integer)
        )
        return replace(space, binary=binary, integer=integer)

    def __str__(self) -> str:
        """Inputs and actions with units and bounds, one line each, in one screen."""
        return describe(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {
            "action_space": self.action_space.to_dict(),
            "cameras": list(self.cameras),
            "image_size": list(self.image_size),
            "relative": list(self.relative),
        }

    @classmethod
    def from_dict(cls, data: Any, where: str = "robot_spec") -> RobotSpec:
        """Inverse of ``to_dict``. Keys that older versions did not write keep their default.

        Raises:
            ConfigError: a key is missing, unknown or has an invalid value; the message begins with
                ``where`` and the path of the key.
        """
        spec: RobotSpec = check(data, cls, where)
        for name, problem in spec.problems():
            raise ConfigError(f"{where}.{name}: {problem}")
        return spec

    def problems(self) -> Iterator[tuple[str, str]]:
        """Fields whose values do not fit together, with the reason."""
        if len(set(self.cameras)) < len(self.cameras):
            yield "cameras", f"the names {', '.join(self.cameras)} are not unique"
        sizes = {
            "history": self.history,
            "horizon": self.horizon,
            "state_dim": self.state_dim,
            "cameras": len(self.cameras),
            "action_space": self.action_space.dim,
        }
        for name, value in sizes.items():
            low, high = _SIZES[name]
            if value < low:
                yield name, f"expected at least {low}, got {value}"
            if value > high:
                yield name, f"expected at most {high}, got {value}"
        if min(self.image_size) < 0 or max(self.image_size) > MAX_SIDE:
            yield "image_size", f"expected 0 to {MAX_SIDE} px, got {list(self.image_size)}"
        observation = 3 * math.prod(self.image_size) * self.history * len(self.cameras)
        if observation > MAX_OBSERVATION:
            problem = f"the images of one observation have {observation} bytes"
            yield "image_size", f"{problem}, expected at most {MAX_OBSERVATION}"
        if not 0 < self.action_space.rate_hz <= MAX_RATE:
            rate = self.action_space.rate_hz
            yield "action_space.rate_hz", f"expected up to {MAX_RATE:g} Hz, got {rate:g}"
        if self.horizon >= 1:
            for option, problem in self.execution.problems(self.horizon):
                yield f"execution.{option}", problem
        dim = self.action_space.dim
        if len(self.relative) not in (0, dim):
            yield "relative", f"expected {dim} numbers, one per action, got {len(self.relative)}"
        widths = {"actions": dim, "state": self.state_dim or None}
        widths["relative"] = dim * self.horizon  # every step of a chunk has its own statistics
        for key, columns in self.statistics.items():
            width = widths.get(key)
            given = columns if isinstance(columns, dict) else {"mean": None}
            for column in _COLUMNS & given.keys():
                values = given[column]
                rows = values if column == "quantiles" else [values]
                if not _is_table(rows, width):
                    wanted = f"{width} finite numbers" if width else "finite numbers"
                    yield f"statistics.{key}.{column}", f"expected {wanted} per row"


def _is_table(rows: Any, width: int | None) -> bool:
    """True for rows of ``width`` finite numbers each; None: of one common width."""
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        return False
    if not rows or {len(row) for row in rows} != {width or len(rows[0])}:
        return False
    return all(type(v) in (int, float) and math.isfinite(v) for row in rows for v in row)


def only(specs: Mapping[str, RobotSpec]) -> RobotSpec:
    """The spec of a policy for one robot.

    Raises:
        ValueError: the policy has several robots; the message lists them.
    """
    if len(specs) != 1:
        raise ValueError(
            f"the policy has {len(specs)} robots; choose one by name: {', '.join(specs)}"
        )
    return next(iter(specs.values()))


def pick(specs: Mapping[str, RobotSpec], robot: str | None) -> str:
    """The name of the chosen robot; ``robot`` may be None if the policy has only one.

    Raises:
        ValueError: an unknown name, or None with several robots; the message lists them.
    """
    if robot is None:
        only(specs)
        return next(iter(specs))
    if robot not in specs:
        raise ValueError(f"the policy has no robot {robot!r}; its robots: {', '.join(specs)}")
    return robot


def library_versions() -> dict[str, str]:
    """Versions of the libraries on which a policy's outputs depend."""
    from importlib.metadata import version

    return {
        name: version(name) for name in ("torch", "timm", "transformers", "tokenizers", "lightning")
    }
