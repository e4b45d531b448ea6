"""Physics of the tabletop: grasping, carrying, pushing, places."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vla.benchmarks.tabletop.scene import SceneConfig, sample_tasks
from vla.benchmarks.tabletop.tasks import DIRECTIONS, PLACES, TabletopTask, in_place
from vla.benchmarks.tabletop.world import HALF_TABLE, HOVER_Z, Command, Gripper, Item, World


def world_of(*tiles: tuple[float, float], gripper: Gripper) -> World:
    return World([Item("1F34E", "noto", "tile", x, y, 0.0) for x, y in tiles], gripper)


def test_only_closing_low_above_a_tile_grasps_it() -> None:
    tiles, gripper = ((0.0, 0.0), (0.2, 0.0)), Gripper(0.0, 0.0)
    high = world_of(*tiles, gripper=gripper)
    high.step(Command(close=1.0))
    assert high.gripper.grasped is None
    beside = world_of(*tiles, gripper=Gripper(0.0, 0.0))
    beside.step(Command(dx=0.08, dz=-0.08))
    beside.step(Command(close=1.0))
    assert beside.gripper.grasped is None
    above = world_of(*tiles, gripper=Gripper(0.0, 0.0))
    above.step(Command(dz=-0.08))
    above.step(Command(close=1.0))
    assert above.gripper.grasped == 0


def test_a_grasped_tile_moves_with_the_gripper_until_it_opens() -> None:
    world = world_of((0.0, 0.0), (0.2, 0.0), gripper=Gripper(0.0, 0.0))
    for command in (
        Command(dz=-0.08),
        Command(close=1.0),
        Command(dz=0.08, close=1.0),
        Command(dx=-0.08, dy=0.05, close=1.0),
    ):
        world.step(command)
    assert world.items[0].z > 0.05
    world.step(Command(close=0.0))
    assert (world.items[0].x, world.items[0].y, world.items[0].z) == (-0.08, 0.05, 0.0)


def test_a_closed_gripper_pushes_tiles_and_an_open_one_does_not() -> None:
    closed = Gripper(-0.1, 0.0, 0.02, aperture=0.0)
    world = world_of((0.0, 0.0), (0.115, 0.0), gripper=closed)
    for _ in range(3):
        world.step(Command(dx=0.05, close=1.0))
    assert world.items[0].x > 0.04 and world.items[1].x > 0.13
    world = world_of((0.0, 0.0), gripper=Gripper(-0.1, 0.0, 0.02, aperture=1.0))
    for _ in range(3):
        world.step(Command(dx=0.05))
    assert world.items[0].x == 0.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_random_actions_keep_items_and_gripper_on_the_table(seed: int) -> None:
    rng = np.random.default_rng(seed)
    world, _ = sample_tasks(SceneConfig(), rng)
    for _ in range(15):
        world.step(Command(*rng.uniform(-0.08, 0.08, 3), close=float(rng.random())))
    assert all(max(abs(i.x), abs(i.y)) <= HALF_TABLE + 0.08 for i in world.items)
    g = world.gripper
    assert 0 <= g.z <= HOVER_Z and max(abs(g.x), abs(g.y)) <= HALF_TABLE


def test_places_and_directions() -> None:
    assert in_place(-0.15, 0.15, "top left") and not in_place(-0.15, 0.15, "centre")
    for where, (x, y) in {
        "left": (-0.2, 0.0),
        "bottom right": (0.2, -0.2),
        "centre": (0.0, 0.0),
    }.items():
        assert where in PLACES and in_place(x, y, where)
    world = world_of((0.0, 0.0), gripper=Gripper())
    assert "left" in DIRECTIONS
    assert TabletopTask("push", 0, where="left", origin=(0.08, 0.0)).succeeded(world)
    assert not TabletopTask("push", 0, where="right", origin=(0.08, 0.0)).succeeded(world)
