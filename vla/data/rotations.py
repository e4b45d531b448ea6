"""Rotations from one way of writing them to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

RotationKind = Literal["quaternion_xyzw", "quaternion_wxyz", "euler_xyz", "axis_angle", "rotation_6d"]
DIMS = {"quaternion_xyzw": 4, "quaternion_wxyz": 4, "euler_xyz": 3, "axis_angle": 3, "rotation_6d": 6}


@dataclass(frozen=True)
class RotationConfig:
    """Neighbouring action dims that are a rotation: the first one's name, what they are, and what they are to be (radians)."""

    first: str
    source: RotationKind
    target: RotationKind = "axis_angle"


def rotation_names(kind: RotationKind) -> list[str]:
    """What the numbers of a rotation are called."""
    if kind == "euler_xyz":
        return ["roll", "pitch", "yaw"]
    if kind == "axis_angle":
        return ["x", "y", "z"]
    return list("xyzw") if kind == "quaternion_xyzw" else list("wxyz") if kind == "quaternion_wxyz" else [str(n) for n in range(6)]


def turn(values: np.ndarray, config: RotationConfig) -> np.ndarray:
    """(T, source dims) to (T, target dims); 6-D: the first two columns of the matrix (arXiv 1812.07035)."""
    if config.source == "rotation_6d":
        a, b = values[:, :3], values[:, 3:]
        x = a / np.linalg.norm(a, axis=1, keepdims=True)
        y = b - (x * b).sum(1, keepdims=True) * x
        y /= np.linalg.norm(y, axis=1, keepdims=True)
        rotation = Rotation.from_matrix(np.stack([x, y, np.cross(x, y)], 2))
    elif config.source.startswith("quaternion"):
        rotation = Rotation.from_quat(values, scalar_first=config.source == "quaternion_wxyz")
    else:
        rotation = Rotation.from_euler("xyz", values) if config.source == "euler_xyz" else Rotation.from_rotvec(values)
    if config.target == "rotation_6d":
        return rotation.as_matrix()[:, :, :2].transpose(0, 2, 1).reshape(len(values), 6)
    if config.target.startswith("quaternion"):
        return rotation.as_quat(canonical=True, scalar_first=config.target == "quaternion_wxyz")
    return rotation.as_euler("xyz") if config.target == "euler_xyz" else rotation.as_rotvec()
