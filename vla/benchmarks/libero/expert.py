"""A scripted expert that picks one object and places it on or in another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from scipy.spatial.transform import Rotation

OPEN, CLOSED = -1.0, 1.0
WIDEST = 0.07  # m; the fingers do not reach around wider objects
_MOVE, _TURN = 0.05, 0.5  # m and rad of an action of 1
_DEPTH = 0.03  # m from the top of an object to the middle of the fingers
_TIP = 0.012  # m from the middle of the fingers to their tips
_CLEAR = 0.1  # m above an object before and after the grasp
_NEAR = 0.012  # m between two grasps that count as one
_WALL = 0.004  # m from the edge of a wide object to the middle of its rim
_ANGLES = np.deg2rad(np.arange(-90, 90, 5))
_ASIDE = (0.0, 0.015, -0.015)  # m from the middle of an object, along the palm
# Phase -> the next one, and the largest number of its steps.
_PHASES = {
    "above": ("down", 80),
    "down": ("close", 30),
    "close": ("lift", 8),
    "lift": ("carry", 40),
    "carry": ("lower", 80),
    "lower": ("open", 30),
    "open": ("away", 8),
    "away": ("above", 12),
}


@dataclass(frozen=True)
class Scene:
    """Positions in the simulator (m). The z axis of the hand points along its fingers."""

    hand: np.ndarray  # (3,) between the fingers
    axes: np.ndarray  # (3, 3) rotation of the hand; the fingers close along its x axis
    object: np.ndarray  # (N, 3) points of the shapes of the object to pick
    target: np.ndarray  # (M, 3) points of the shapes of the object to place it on
    others: np.ndarray  # (K, 3) points of all shapes but those of the robot and of ``object``


@dataclass(frozen=True)
class Grasp:
    """Where the hand closes."""

    point: np.ndarray  # (3,) between the fingers, m
    axes: np.ndarray  # (3, 3) rotation of the hand, which points down
    top: float  # height of the object's top, m


def find_grasp(scene: Scene, tried: Sequence[np.ndarray] = ()) -> Grasp:
    """The grasp from above that meets the fewest points of other objects.

    The fingers close across the object, or across the rim of an object that is too wide for them.
    Among grasps that are as free, a narrow side and a small turn of the hand are preferred.

    Args:
        tried: points (3,) of grasps that failed; others are preferred.
    """
    heading = np.arctan2(scene.axes[1, 0], scene.axes[0, 0])
    low, high = scene.object.min(0), scene.object.max(0)
    middle = (low + high) / 2
    flat = scene.object[:, :2] - middle[:2]
    lines = {angle: _line(heading + angle) for angle in _ANGLES}
    widths = {angle: float(np.ptp(flat @ line)) for angle, line in lines.items()}
    is_wide = min(widths.values()) > WIDEST
    best, least = None, np.inf
    for angle, line in lines.items():
        width = widths[angle]
        if width > WIDEST and not is_wide:
            continue
        along = line if is_wide else np.array([-line[1], line[0]])
        across = (width / 2 - _WALL) * np.array([-1, 1]) if is_wide else np.array(_ASIDE)
        for shift in across:
            xy = middle[:2] + shift * along
            point = np.array([*xy, max(high[2] - _DEPTH, low[2] + _TIP)])
            near = sum(np.linalg.norm(point[:2] - other[:2]) < _NEAR for other in tried)
            cost = float(_met(scene.others - point, line) + 10 * near) + 0.2 * abs(angle)
            cost += 5 * width + (0.0 if is_wide else 10 * abs(shift))
            if cost < least:
                best, least = (point, line), cost
    assert best is not None  # the narrowest side is always tried
    axis, down = np.array([*best[1], 0.0]), np.array([0.0, 0.0, -1.0])
    return Grasp(best[0], np.stack([axis, np.cross(down, axis), down], 1), float(high[2]))


def _line(angle: float) -> np.ndarray:
    return np.array([np.cos(angle), np.sin(angle)])


def _met(points: np.ndarray, line: np.ndarray) -> int:
    """How many points (K, 3), relative to the grasp, are within the palm or the open fingers."""
    x, y = np.abs(points[:, :2] @ line), np.abs(points[:, :2] @ [-line[1], line[0]])
    z = points[:, 2]
    palm = (x < 0.115) & (y < 0.045) & (z > 0.032) & (z < 0.2)
    fingers = (x > 0.03) & (x < 0.065) & (y < 0.02) & (z > -0.02)
    return int((palm | (fingers & (z < 0.1))).sum())


class PickAndPlace:
    """An expert for one episode; see ``vla.benchmarks.base.Expert``. It tries again if it fails.

    Args:
        into: drop the object into the target from above; else put it down on the target.
    """

    def __init__(self, into: bool) -> None:
        self.into = into
        self.phase, self.count = "above", 0
        self.grasp: Grasp | None = None
        self.tried: list[np.ndarray] = []  # points of grasps from which the object was lost
        self.start = np.zeros(3)  # position of the hand at the beginning of the phase

    def __call__(self, env: gym.Env[Any, Any], observation: dict[str, Any]) -> np.ndarray:
        simulator: Any = env.unwrapped
        return self.act(simulator.scene())

    def act(self, scene: Scene) -> np.ndarray:
        """The action (7,) in a scene."""
        if self.grasp is None:
            self.grasp, self.start = find_grasp(scene, self.tried), scene.hand
        goal = self._goal(scene, self.grasp)
        turn = Rotation.from_matrix(self.grasp.axes @ scene.axes.T).as_rotvec()
        gripper = OPEN if self.phase in ("above", "down", "open", "away") else CLOSED
        self._advance(scene, goal, turn)
        move = 2 * (goal - scene.hand) / _MOVE
        return np.clip([*move, *(turn / _TURN), gripper], -1, 1).astype(np.float32)

    def _goal(self, scene: Scene, grasp: Grasp) -> np.ndarray:
        """Where the hand is to be."""
        here, held = scene.hand, scene.hand[2] - scene.object[:, 2].min()
        rim = scene.target[:, 2].max()
        high = max(rim + held + 0.03, grasp.point[2] + _CLEAR)
        middle = (scene.object.min(0) + scene.object.max(0)) / 2
        place = (scene.target.min(0) + scene.target.max(0)) / 2 + here - middle
        if self.phase == "above":
            above = max(grasp.top + _CLEAR, grasp.point[2] + _CLEAR)
            xy = self.start[:2] if here[2] < above - 0.03 else grasp.point[:2]
            return np.array([*xy, above])
        if self.phase in ("down", "close"):
            return grasp.point
        if self.phase == "lift":
            return np.array([*grasp.point[:2], high])
        if self.phase == "carry":
            return np.array([*place[:2], high])
        if self.phase == "lower":
            return np.array([*place[:2], rim + held + (0.0 if self.into else -0.005)])
        return self.start + np.array([0, 0, 0.0 if self.phase == "open" else _CLEAR])

    def _advance(self, scene: Scene, goal: np.ndarray, turn: np.ndarray) -> None:
        """Choose the phase of the next step."""
        self.count += 1
        near = np.linalg.norm(goal - scene.hand) < (0.008 if self.phase == "down" else 0.015)
        following, limit = _PHASES[self.phase]
        waits = self.phase in ("close", "open")
        done = near and not waits and np.linalg.norm(turn) < 0.1
        lost = self.phase in ("lift", "carry") and self._is_lost(scene)
        if not (done or lost or self.count >= limit):
            return
        if lost and self.grasp is not None:
            self.tried.append(self.grasp.point)
        self.phase, self.count, self.start = "above" if lost else following, 0, scene.hand
        if self.phase == "above":
            self.grasp = None

    @staticmethod
    def _is_lost(scene: Scene) -> bool:
        """True if the object is not between the fingers."""
        box = scene.object.min(0) - 0.03, scene.object.max(0) + 0.03
        return bool((scene.hand < box[0]).any() or (scene.hand > box[1]).any())
