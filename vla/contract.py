"""The contract a policy carries for each robot: what it sees, what it commands, and in which units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from vla.schema import ActionSpace


@dataclass
class Contract:
    """Saved with every policy, checked by whoever feeds it.

    cameras in order; image_size px of the training images (height, width); history frames, horizon steps; statistics of the training
    actions and state in robot units (see ``vla.data.manifest.statistics``); versions of the libraries that trained it;
    environment: the source of the robot data (for the tabletop: its scene), so that evaluation can find the same one; state_dim: numbers of the
    robot's measured state that the policy must be given at every frame of history (0: it does not look at it); relative: of every action dim the state dim
    that it is learned as a difference to (-1: none), empty where all are learned as they are (``statistics["relative"]`` are then those of the differences).
    """

    action_space: ActionSpace
    cameras: tuple[str, ...]
    image_size: tuple[int, int]
    history: int = 1
    horizon: int = 1
    statistics: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    state_dim: int = 0
    relative: tuple[int, ...] = ()

    @property
    def learned_space(self) -> ActionSpace:
        """The action space as a head learns it: decisions given as differences (-1, 0, 1) are numbers there, and decisions again when the policy acts."""
        space = self.action_space
        changed = {n for n, k in zip(space.names, self.relative, strict=False) if k >= 0}
        return replace(space, binary=tuple(n for n in space.binary if n not in changed))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {
            "action_space": self.action_space.to_dict(),
            "cameras": list(self.cameras),
            "image_size": list(self.image_size),
            "relative": list(self.relative),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Contract:
        """Inverse of ``to_dict``."""
        space = ActionSpace.from_dict(data["action_space"])
        tuples = {"cameras": tuple(data["cameras"]), "image_size": tuple(data["image_size"])}
        tuples["relative"] = tuple(data.get("relative", ()))  # policies saved before there were differences have none
        return cls(**{**data, **tuples, "action_space": space})


def only(contracts: Mapping[str, Contract]) -> Contract:
    """The contract of a policy for one robot.

    Raises:
        ValueError: it commands several; the message lists them.
    """
    if len(contracts) != 1:
        raise ValueError(f"this policy commands several robots; ask for one by name: {', '.join(contracts)}")
    return next(iter(contracts.values()))


def pick(contracts: Mapping[str, Contract], robot: str | None) -> str:
    """The name of the robot that is meant.

    Raises:
        ValueError: an unknown name, or none where there are several; the message lists them.
    """
    if robot is None:
        only(contracts)
        return next(iter(contracts))
    if robot not in contracts:
        raise ValueError(f"this policy knows no robot {robot!r}; it commands {', '.join(contracts)}")
    return robot


def library_versions() -> dict[str, str]:
    """Versions of what defines a policy's numbers."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "timm", "transformers", "tokenizers", "lightning")}
