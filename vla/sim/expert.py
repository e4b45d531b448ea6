"""The scripted expert: a function of state and task alone, so it can label any state with any instruction."""

from __future__ import annotations

import math

from vla.sim.tasks import DIRECTIONS, Task, goal_xy
from vla.sim.world import FINGER_RADIUS, HOVER_Z, LIFTED_Z, LOW_Z, TILE_SIDE, Command, World

MAX_STEP = 0.08  # m a control step
_TOUCH_Z = 0.02  # m, height for grasping and pushing
_ARRIVED = 0.02  # m
_LOW_TRAVEL = 0.03  # m, how far the gripper may correct sideways while low
_LATTICE = 0.01  # m
_STROKE = TILE_SIDE / 2 + FINGER_RADIUS + 0.025  # m behind the tile's centre, where a push starts


def _lattice(value: float) -> float:
    """At most MAX_STEP either way, in whole centimetres: an operator's command, not a measurement of the tile's centre."""
    return round(max(-MAX_STEP, min(MAX_STEP, value)) / _LATTICE) * _LATTICE


def expert_command(world: World, task: Task) -> Command:
    """The expert's next command (metres, radians) for this task in this state; says ``terminate`` once it is done."""
    g = world.gripper
    if task.succeeded(world):
        return Command(close=0.0 if g.held is None and g.aperture > 0.5 else 1.0, terminate=True)
    if g.held is not None and g.held != task.target:
        return Command(close=0.0)
    if task.skill == "push":
        return _push(world, task)
    if g.held == task.target:
        return _carry(world, task)
    item = world.items[task.target]
    dx, dy = item.x - g.x, item.y - g.y
    if math.hypot(dx, dy) > (_LOW_TRAVEL if g.z <= LOW_Z else _ARRIVED):
        return Command(_lattice(dx), _lattice(dy), _lattice(HOVER_Z - g.z), close=0.0)
    if g.z > LOW_Z:
        return Command(_lattice(dx), _lattice(dy), _lattice(_TOUCH_Z - g.z), close=0.0)
    return Command(close=1.0 if g.aperture > 0.5 else 0.0)


def waypoint(world: World, task: Task) -> tuple[float, float]:
    """Where the gripper is heading (m): the target, the goal when it is carried, the start of a stroke, or here when all is done."""
    g, item = world.gripper, world.items[task.target]
    if task.succeeded(world) or g.held not in (None, task.target):
        return g.x, g.y
    if task.skill == "push":
        ux, uy = DIRECTIONS[task.where]
        return item.x - _STROKE * ux, item.y - _STROKE * uy
    return goal_xy(task, world) if g.held == task.target else (item.x, item.y)


def _carry(world: World, task: Task) -> Command:
    """Holding the target: lift; for other skills than ``pick`` travel high and open above the goal."""
    g, item = world.gripper, world.items[task.target]
    if task.skill == "pick" or g.z < LIFTED_Z:
        return Command(dz=_lattice(HOVER_Z - g.z), close=1.0)
    goal_x, goal_y = goal_xy(task, world)
    dx, dy = goal_x - item.x, goal_y - item.y
    if math.hypot(dx, dy) > _ARRIVED:
        return Command(_lattice(dx), _lattice(dy), _lattice(HOVER_Z - g.z), close=1.0)
    return Command(close=0.0)


def _push(world: World, task: Task) -> Command:
    """Closed gripper behind the tile, down, then forward; comes up to line up again when it has slipped off."""
    g, item = world.gripper, world.items[task.target]
    if g.held is not None:
        return Command(close=0.0)
    ux, uy = DIRECTIONS[task.where]
    rel_x, rel_y = g.x - item.x, g.y - item.y
    along, side = rel_x * ux + rel_y * uy, rel_x * -uy + rel_y * ux
    gap = TILE_SIDE / 2 + FINGER_RADIUS
    start_x, start_y = waypoint(world, task)
    dx, dy = start_x - g.x, start_y - g.y
    if g.z <= LOW_Z and abs(side) <= 0.025 and -gap - 0.06 <= along <= -0.03:
        return Command(_lattice(0.05 * ux + 0.5 * side * uy), _lattice(0.05 * uy - 0.5 * side * ux), close=1.0)
    if g.z <= LOW_Z and math.hypot(dx, dy) > _LOW_TRAVEL:
        return Command(dz=_lattice(HOVER_Z - g.z), close=1.0)
    if math.hypot(dx, dy) > _ARRIVED:
        return Command(_lattice(dx), _lattice(dy), _lattice(HOVER_Z - g.z), close=1.0)
    return Command(_lattice(dx), _lattice(dy), _lattice(_TOUCH_Z - g.z), close=1.0)
