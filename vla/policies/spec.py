"""RobotSpec: the inputs, outputs and units of one robot of a policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from vla.types import ActionSpace


@dataclass
class RobotSpec:
    """Inputs and outputs of a policy for one robot; saved in ``robot_spec.json``."""

    # Names, units and bounds of the action dimensions, and the control rate.
    action_space: ActionSpace
    # Cameras in the order in which the policy gets their images.
    cameras: tuple[str, ...]
    # (height, width) of the training images in pixels; 0: unknown, images are not resized.
    image_size: tuple[int, int]
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

    @property
    def learned_space(self) -> ActionSpace:
        """The action space in which the head is trained.

        A binary dimension that is learned as a difference has the values -1, 0 and 1. It is not
        binary in this space.
        """
        space = self.action_space
        changed = {n for n, k in zip(space.names, self.relative, strict=False) if k >= 0}
        return replace(space, binary=tuple(n for n in space.binary if n not in changed))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {
            "action_space": self.action_space.to_dict(),
            "cameras": list(self.cameras),
            "image_size": list(self.image_size),
            "relative": list(self.relative),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RobotSpec:
        """Inverse of ``to_dict``."""
        changed = {
            "action_space": ActionSpace.from_dict(data["action_space"]),
            "cameras": tuple(data["cameras"]),
            "image_size": tuple(data["image_size"]),
            "relative": tuple(data.get("relative", ())),  # absent in policies of older versions
        }
        return cls(**{**data, **changed})


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
