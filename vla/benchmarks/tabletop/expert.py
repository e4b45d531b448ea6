"""The scripted expert. It depends on state and task alone, so it can label any state."""

from __future__ import annotations

import math

from vla.benchmarks.tabletop.tasks import DIRECTIONS, TabletopTask, goal_xy
from vla.benchmarks.tabletop.world import (
    ARM_REACH,
    FINGER_RADIUS,
    HOVER_Z,
    LIFTED_Z,
    LOW_Z,
    TILE_SIDE,
    Command,
    World,
)

MAX_STEP = 0.08  # m per control step
_TOUCH_Z = 0.02  # m; height for grasping and pushing
_ARRIVED = 0.02  # m; closer than this counts as arrived
_LOW_TRAVEL = 0.03  # m; largest sideways correction while low
_RESOLUTION = 0.01  # m; commands are multiples of it
_CONTACT = TILE_SIDE / 2 + FINGER_RADIUS  # m; from gripper to tile centre when they touch
_STROKE = _CONTACT + 0.025  # m; a push starts this far behind the tile's centre
_PUSH_STEP = 0.05  # m per control step while pushing
_PUSH_ALIGNED = 0.025  # m; largest sideways offset while pushing


def _quantize(value: float) -> float:
    """A displacement limited to ``MAX_STEP`` and rounded to whole centimetres.

    An operator's commands have such a resolution; they do not measure the tile's centre.
    """
    return round(max(-MAX_STEP, min(MAX_STEP, value)) / _RESOLUTION) * _RESOLUTION


def _move(dx: float, dy: float, dz: float, close: float) -> Command:
    return Command(_quantize(dx), _quantize(dy), _quantize(dz), close=close)


def expert_command(world: World, task: TabletopTask) -> Command:
    """The expert's command (m, rad) in this state; ``terminate`` is set once the task is done.

    A mobile base moves where the arm alone does not reach; the arm is lifted first.
    """
    command, g = _arm_command(world, task), world.gripper
    if g.base is None:
        return command
    offsets = g.x + command.dx - g.base.x, g.y + command.dy - g.base.y
    if max(map(abs, offsets)) <= ARM_REACH + 1e-6:
        return command
    if g.z <= LOW_Z and command.dz > 0:
        return Command(dz=command.dz, close=command.close)
    return Command(command.dx, command.dy, close=command.close, base=True)


def _arm_command(world: World, task: TabletopTask) -> Command:
    """The command of an arm that reaches the whole table."""
    g = world.gripper
    if task.succeeded(world):
        is_open = g.grasped is None and g.aperture > 0.5
        return Command(close=0.0 if is_open else 1.0, terminate=True)
    if g.grasped is not None and g.grasped != task.target:
        return Command(close=0.0)
    if task.skill == "push":
        return _push(world, task)
    if g.grasped == task.target:
        return _carry(world, task)
    item = world.items[task.target]
    dx, dy = item.x - g.x, item.y - g.y
    if math.hypot(dx, dy) > (_LOW_TRAVEL if g.z <= LOW_Z else _ARRIVED):
        return _move(dx, dy, HOVER_Z - g.z, close=0.0)
    if g.z > LOW_Z:
        return _move(dx, dy, _TOUCH_Z - g.z, close=0.0)
    return Command(close=1.0 if g.aperture > 0.5 else 0.0)


def waypoint(world: World, task: TabletopTask) -> tuple[float, float]:
    """The position (m) that the gripper moves to.

    This is the target, the goal while the target is carried, the start of a push stroke, or the
    present position if the task is done or a wrong tile is grasped.
    """
    g, item = world.gripper, world.items[task.target]
    if task.succeeded(world) or g.grasped not in (None, task.target):
        return g.x, g.y
    if task.skill == "push":
        ux, uy = DIRECTIONS[task.where]
        return item.x - _STROKE * ux, item.y - _STROKE * uy
    return goal_xy(task, world) if g.grasped == task.target else (item.x, item.y)


def _carry(world: World, task: TabletopTask) -> Command:
    """Lift the grasped target; skills other than ``pick`` then travel to the goal and release."""
    g, item = world.gripper, world.items[task.target]
    if task.skill == "pick" or g.z < LIFTED_Z:
        return Command(dz=_quantize(HOVER_Z - g.z), close=1.0)
    goal_x, goal_y = goal_xy(task, world)
    dx, dy = goal_x - item.x, goal_y - item.y
    if math.hypot(dx, dy) > _ARRIVED:
        return _move(dx, dy, HOVER_Z - g.z, close=1.0)
    return Command(close=0.0)


def _push(world: World, task: TabletopTask) -> Command:
    """Go behind the tile with a closed gripper, down, then forward; start over after a slip."""
    g, item = world.gripper, world.items[task.target]
    if g.grasped is not None:
        return Command(close=0.0)
    ux, uy = DIRECTIONS[task.where]
    rel_x, rel_y = g.x - item.x, g.y - item.y
    along, side = rel_x * ux + rel_y * uy, rel_x * -uy + rel_y * ux
    start_x, start_y = waypoint(world, task)
    dx, dy = start_x - g.x, start_y - g.y
    low = g.z <= LOW_Z
    if low and abs(side) <= _PUSH_ALIGNED and -_CONTACT - 0.06 <= along <= -0.03:
        return _move(
            _PUSH_STEP * ux + 0.5 * side * uy, _PUSH_STEP * uy - 0.5 * side * ux, 0.0, close=1.0
        )
    if low and math.hypot(dx, dy) > _LOW_TRAVEL:
        return Command(dz=_quantize(HOVER_Z - g.z), close=1.0)
    if math.hypot(dx, dy) > _ARRIVED:
        return _move(dx, dy, HOVER_Z - g.z, close=1.0)
    return _move(dx, dy, _TOUCH_Z - g.z, close=1.0)
