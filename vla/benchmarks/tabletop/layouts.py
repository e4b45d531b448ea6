"""Two action layouts of the same robot: RT-2's 8 dimensions and RT-1's 11 dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np

from vla.benchmarks.tabletop.world import Command
from vla.types import ActionSpace

_MAX_MOVE, _MAX_TILT, _MAX_TURN = 0.08, 0.25, 0.5  # m, rad and rad per control step

_ARM = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
_ARM_UNITS = ("m", "m", "m", "rad", "rad", "rad", "closed")
_ARM_HIGH = (_MAX_MOVE, _MAX_MOVE, _MAX_MOVE, _MAX_TILT, _MAX_TILT, _MAX_TURN, 1.0)
_ARM_LOW = (*(-h for h in _ARM_HIGH[:6]), 0.0)

_CONVENTIONS: dict[str, Any] = {
    "relative": _ARM[:6],
    "absolute": ("gripper",),
    "rotation": "euler_xyz",
}

LAYOUTS = {
    # RT-2 (arXiv 2307.15818, section 3.2): terminate, position, rotation, gripper extension
    "rt2": ActionSpace(
        ("terminate", *_ARM),
        ("flag", *_ARM_UNITS),
        (0.0, *_ARM_LOW),
        (1.0, *_ARM_HIGH),
        ("terminate", "gripper"),
        **_CONVENTIONS,
    ),
    # RT-1 (arXiv 2212.06817, section 4): arm and gripper, base, mode (0 arm, 1 base, 2 terminate)
    "rt1": ActionSpace(
        (*_ARM, "base_dx", "base_dy", "base_dyaw", "mode"),
        (*_ARM_UNITS, "m", "m", "rad", "mode"),
        (*_ARM_LOW, -_MAX_MOVE, -_MAX_MOVE, -_MAX_TURN, 0.0),
        (*_ARM_HIGH, _MAX_MOVE, _MAX_MOVE, _MAX_TURN, 2.0),
        ("gripper",),
        integer=("mode",),
        **_CONVENTIONS | {"relative": (*_ARM[:6], "base_dx", "base_dy", "base_dyaw")},
    ),
}


def check_layout(layout: str, mobile_base: bool) -> None:
    """Check the options of environment, benchmark and source.

    Raises:
        ValueError: an unknown layout, or one without actions of the base for a mobile base.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"unknown action layout {layout!r}; choose {' or '.join(LAYOUTS)}")
    if mobile_base and layout != "rt1":
        raise ValueError(
            f"mobile_base=true: layout {layout!r} has no actions of the base; use layout=rt1"
        )


def _command(arm: np.ndarray, close: float, terminate: bool) -> Command:
    dx, dy, dz, droll, dpitch, dyaw = (float(v) for v in arm)
    return Command(dx, dy, dz, droll, dpitch, dyaw, float(close), terminate)


def to_command(layout: str, action: np.ndarray) -> Command:
    """The command for an action (A,) in the units of its layout.

    In RT-1's base mode the base moves and carries the arm with it. A robot without a mobile base
    moves the arm instead.
    """
    if layout == "rt2":
        return _command(action[1:7], action[7], bool(action[0] >= 0.5))
    mode = round(float(action[10]))
    if mode == 1:
        dx, dy, dyaw = (float(v) for v in action[7:10])
        return Command(dx, dy, dyaw=dyaw, close=float(action[6]), base=True)
    return _command(action[:6] if mode == 0 else np.zeros(6), action[6], mode == 2)


def to_action(layout: str, command: Command) -> np.ndarray:
    """The action (A,) float32 for a command; the inverse of ``to_command``."""
    c = command
    if c.base:
        return np.array([*[0.0] * 6, c.close, c.dx, c.dy, c.dyaw, 1.0], np.float32)
    arm = [c.dx, c.dy, c.dz, c.droll, c.dpitch, c.dyaw, c.close]
    if layout == "rt2":
        return np.array([float(c.terminate), *arm], np.float32)
    return np.array([*arm, 0.0, 0.0, 0.0, 2.0 if c.terminate else 0.0], np.float32)
