"""LIBERO's scripted expert in a world without physics."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vla.benchmarks.libero.expert import WIDEST, PickAndPlace, Scene, find_grasp

GRID = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
HOME = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])  # closes along y


def box(middle: tuple[float, ...], half: tuple[float, ...], turn: float = 0.0) -> np.ndarray:
    return np.array(middle) + GRID * half @ Rotation.from_euler("z", turn).as_matrix().T


class World:
    """A hand that moves as it is told, an object that it may hold, and a target."""

    def __init__(self, thing: np.ndarray, others: np.ndarray, slips: int = 0) -> None:
        self.hand, self.axes = np.array([-0.2, 0.0, 0.25]), HOME
        self.thing, self.others, self.slips = thing, others, slips
        self.target = box((0.05, 0.25, 0.005), (0.07, 0.07, 0.005))
        self.held = False

    def scene(self) -> Scene:
        others = np.concatenate([self.target, self.others])
        return Scene(self.hand, self.axes, self.thing, self.target, others)

    def step(self, action: np.ndarray) -> None:
        assert action.shape == (7,) and np.abs(action).max() <= 1
        move = 0.012 * action[:3]
        self.hand = self.hand + move
        self.axes = Rotation.from_rotvec(0.08 * action[3:6]).as_matrix() @ self.axes
        low, high = self.thing.min(0) - 0.005, self.thing.max(0) + 0.005
        reached = bool(((low < self.hand) & (self.hand < high)).all())
        if action[6] > 0 and not self.held and reached:
            self.held = True
        if self.held and self.slips and self.hand[2] > 0.1:
            self.slips, self.held = self.slips - 1, False
        if action[6] < 0:
            self.held = False
        if self.held:
            self.thing = self.thing + move
        else:
            self.thing = self.thing - [0, 0, self.thing[:, 2].min()]

    def is_done(self) -> bool:
        apart = (
            self.thing.min(0) + self.thing.max(0) - self.target.min(0) - self.target.max(0)
        ) / 2
        return not self.held and float(np.abs(apart[:2]).max()) < 0.03


@pytest.mark.parametrize(("into", "slips"), [(True, 0), (False, 1)])
@pytest.mark.parametrize(
    "half", [(0.03, 0.03, 0.04), (0.04, 0.02, 0.01), (0.05, 0.05, 0.03)], ids=["can", "box", "bowl"]
)
def test_the_object_gets_to_its_target(half: tuple[float, ...], into: bool, slips: int) -> None:
    world = World(box((0.0, -0.15, half[2]), half), np.zeros((0, 3)), slips)
    expert = PickAndPlace(into)
    steps = 0
    while not world.is_done():
        world.step(expert.act(world.scene()))
        steps += 1
        assert steps < 220
    assert world.slips == 0


def palm(grasp_axes: np.ndarray) -> float:
    """Angle of the line along which the fingers close, degrees from 0 to 180."""
    return float(np.degrees(np.arctan2(grasp_axes[1, 0], grasp_axes[0, 0]))) % 180


def grasp_of(thing: np.ndarray, others: np.ndarray) -> np.ndarray:
    scene = Scene(np.array([-0.2, 0, 0.25]), HOME, thing, thing, others)
    found = find_grasp(scene)
    assert np.allclose(found.axes.T @ found.axes, np.eye(3)) and found.axes[2, 2] == -1
    assert np.linalg.det(found.axes) == pytest.approx(1)
    return found.axes


@pytest.mark.parametrize("turn", [-40, 0, 30, 80])
def test_the_fingers_close_across_the_narrow_side(turn: int) -> None:
    thing = box((0, 0, 0.02), (0.045, 0.02, 0.02), np.deg2rad(turn))
    angle = palm(grasp_of(thing, np.zeros((0, 3)) + 9))
    assert abs((angle - (90 + turn) + 90) % 180 - 90) <= 10


def test_the_palm_turns_away_from_a_neighbour() -> None:
    thing, tall = box((0, 0, 0.02), (0.02, 0.02, 0.02)), box((0, 0.1, 0.06), (0.02, 0.02, 0.06))
    assert palm(grasp_of(thing, box((5, 5, 5), (1, 1, 1)))) == pytest.approx(90)
    assert abs(palm(grasp_of(thing, tall)) - 90) > 20


def test_a_wide_object_is_held_at_its_rim() -> None:
    bowl = box((0.1, 0.1, 0.03), (0.06, 0.06, 0.03))
    point = find_grasp(Scene(np.zeros(3), HOME, bowl, bowl, np.zeros((0, 3)))).point
    assert 0.05 < np.linalg.norm(point[:2] - 0.1) < 0.07 and WIDEST < 0.12
