"""Conversion between representations of rotations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

RotationKind = Literal[
    "quaternion_xyzw", "quaternion_wxyz", "euler_xyz", "axis_angle", "rotation_6d"
]
_NAMES = {
    "quaternion_xyzw": list("xyzw"),
    "quaternion_wxyz": list("wxyz"),
    "euler_xyz": ["roll", "pitch", "yaw"],
    "axis_angle": list("xyz"),
    "rotation_6d": [str(n) for n in range(6)],
}
DIMS = {kind: len(names) for kind, names in _NAMES.items()}


@dataclass(frozen=True)
class RotationConfig:
    """Conversion of neighbouring action dimensions that are one rotation."""

    first: str  # name of the first of these action dimensions
    # Recorded representation. euler_xyz: radians; rotation_6d: the first two columns of the
    # rotation matrix (arXiv 1812.07035).
    source: RotationKind
    target: RotationKind = "axis_angle"  # representation that the policy learns; angles in radians


def rotation_names(kind: RotationKind) -> list[str]:
    """Names of the dimensions of a representation."""
    return list(_NAMES[kind])


def convert_rotation(values: np.ndarray, config: RotationConfig) -> np.ndarray:
    """(T, source dimensions) to (T, target dimensions)."""
    if config.source == "rotation_6d":
        a, b = values[:, :3], values[:, 3:]
        x = a / np.linalg.norm(a, axis=1, keepdims=True)
        y = b - (x * b).sum(1, keepdims=True) * x
        y /= np.linalg.norm(y, axis=1, keepdims=True)
        rotation = Rotation.from_matrix(np.stack([x, y, np.cross(x, y)], 2))
    elif config.source.startswith("quaternion"):
        rotation = Rotation.from_quat(values, scalar_first=config.source == "quaternion_wxyz")
    elif config.source == "euler_xyz":
        rotation = Rotation.from_euler("xyz", values)
    else:
        rotation = Rotation.from_rotvec(values)
    if config.target == "rotation_6d":
        return rotation.as_matrix()[:, :, :2].transpose(0, 2, 1).reshape(len(values), 6)
    if config.target.startswith("quaternion"):
        return rotation.as_quat(canonical=True, scalar_first=config.target == "quaternion_wxyz")
    return rotation.as_euler("xyz") if config.target == "euler_xyz" else rotation.as_rotvec()
