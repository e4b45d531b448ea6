"""Skills of the tabletop: instruction templates, success predicates and feasibility."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vla.benchmarks.tabletop.web.concepts import concepts
from vla.benchmarks.tabletop.world import LIFTED_Z, World

# Distances in metres. A tile is 0.13 m wide; distances between items are between their centres.
NEAR = 0.205  # largest distance that counts as near
PUSHED = 0.07  # smallest displacement along the push direction
PUSH_DRIFT = 0.06  # largest displacement across the push direction
ON_CARD = 0.055  # largest distance of a tile on a card
EDGE = 0.10  # from the centre line; places such as "left" and "top" begin here
CENTRE = 0.08  # half width of the place "centre"
PLACE_XY = 0.16  # from the centre line; the expert's goal for a place
_NEAR_GOAL = 0.165  # distance from the other tile at which the expert releases
_PUSH_GOAL = 0.10  # displacement that the expert aims for
_GOAL_LIMIT = 0.22  # goals are at most this far from the centre, per axis
_FREE = 0.15  # a free place has no other tile within this distance

DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, 1.0), "down": (0.0, -1.0)}
# Side of the table in x and y: -1 low, 1 high, 0 centre, None any
PLACES = {
    "left": (-1, None),
    "right": (1, None),
    "top": (None, 1),
    "bottom": (None, -1),
    "centre": (0, 0),
    "top left": (-1, 1),
    "top right": (1, 1),
    "bottom left": (-1, -1),
    "bottom right": (1, -1),
}

# x: name of the target; y: name of the other item; p: place or direction
INSTRUCTION_TEMPLATES = {
    "pick": ("pick the {x}", "pick up the {x}", "lift the {x}", "grasp the {x}"),
    "near": (
        "move the {x} near the {y}",
        "bring the {x} close to the {y}",
        "put the {x} next to the {y}",
    ),
    "place": (
        "move the {x} to the {p}",
        "place the {x} at the {p}",
        "bring the {x} to the {p} of the table",
    ),
    "push": ("push the {x} {p}", "slide the {x} {p}", "nudge the {x} {p}"),
    "card": (
        "put the {x} on the {y} card",
        "place the {x} on top of the {y} card",
        "drop the {x} on the {y} card",
    ),
}
SKILLS = tuple(INSTRUCTION_TEMPLATES)


@dataclass(frozen=True)
class TabletopTask:
    """One instruction for one scene."""

    skill: str
    target: int  # index of the tile to move in ``World.items``
    other: int = -1  # index of the item to move it to; -1: none
    where: str = ""  # place or direction; empty: none
    origin: tuple[float, float] = (0.0, 0.0)  # the target's first position, m
    instruction: str = ""

    def succeeded(self, world: World) -> bool:
        """True if the task is done; a function of the state alone."""
        return _SUCCESS[self.skill](self, world)

    def failed(self, world: World) -> bool:
        """True if a wrong tile is lifted; the episode then ends."""
        grasped = world.gripper.grasped
        return (
            grasped is not None
            and grasped != self.target
            and world.items[grasped].z + 1e-9 >= LIFTED_Z / 2
        )


def _released(task: TabletopTask, world: World) -> bool:
    return world.gripper.grasped != task.target


def _picked(task: TabletopTask, world: World) -> bool:
    return world.gripper.grasped == task.target and world.gripper.z >= LIFTED_Z


def _within(task: TabletopTask, world: World, distance: float) -> bool:
    a, b = world.items[task.target], world.items[task.other]
    return _released(task, world) and math.hypot(a.x - b.x, a.y - b.y) <= distance


def in_place(x: float, y: float, where: str, margin: float = 0.0) -> bool:
    """True if a point (m) is in the named place, at least ``margin`` metres inside its border."""

    def on_side(value: float, side: int | None) -> bool:
        if side is None:
            return True
        return abs(value) <= CENTRE - margin if side == 0 else value * side >= EDGE + margin

    side_x, side_y = PLACES[where]
    return on_side(x, side_x) and on_side(y, side_y)


def _placed(task: TabletopTask, world: World) -> bool:
    item = world.items[task.target]
    return _released(task, world) and in_place(item.x, item.y, task.where)


def _pushed(task: TabletopTask, world: World) -> bool:
    item, (ux, uy) = world.items[task.target], DIRECTIONS[task.where]
    dx, dy = item.x - task.origin[0], item.y - task.origin[1]
    along, across = dx * ux + dy * uy, abs(dx * uy - dy * ux)
    return _released(task, world) and along >= PUSHED and across <= PUSH_DRIFT


_SUCCESS: dict[str, Callable[[TabletopTask, World], bool]] = {
    "pick": _picked,
    "near": lambda task, world: _within(task, world, NEAR),
    "place": _placed,
    "push": _pushed,
    "card": lambda task, world: _within(task, world, ON_CARD),
}


def goal_xy(task: TabletopTask, world: World) -> tuple[float, float]:
    """The goal position (m) of the target; for ``push`` the end of the stroke."""
    item = world.items[task.target]
    if task.skill == "near":
        other = world.items[task.other]
        dx, dy = item.x - other.x, item.y - other.y
        distance = math.hypot(dx, dy)
        if distance < 1e-6:
            dx, dy, distance = 0.0, -1.0, 1.0
        return other.x + _NEAR_GOAL * dx / distance, other.y + _NEAR_GOAL * dy / distance
    if task.skill == "place":
        side_x, side_y = PLACES[task.where]
        return (
            item.x if side_x is None else side_x * PLACE_XY,
            item.y if side_y is None else side_y * PLACE_XY,
        )
    if task.skill == "push":
        ux, uy = DIRECTIONS[task.where]
        return task.origin[0] + _PUSH_GOAL * ux, task.origin[1] + _PUSH_GOAL * uy
    if task.skill == "card":
        return world.items[task.other].x, world.items[task.other].y
    return item.x, item.y


def _is_free(world: World, x: float, y: float, ignore: int, radius: float = _FREE) -> bool:
    """True if no tile but ``ignore`` has its centre within ``radius`` metres of a point."""
    return all(
        math.hypot(i.x - x, i.y - y) >= radius
        for n, i in enumerate(world.items)
        if i.kind == "tile" and n != ignore
    )


def is_feasible(task: TabletopTask, world: World) -> bool:
    """True if the task is not done yet and can be done without moving other tiles."""
    if task.succeeded(world):
        return False
    item, (gx, gy) = world.items[task.target], goal_xy(task, world)
    if max(abs(gx), abs(gy)) > _GOAL_LIMIT:
        return False
    if task.skill == "near":
        other = world.items[task.other]
        far = math.hypot(item.x - other.x, item.y - other.y) > 0.26
        return far and _is_free(world, gx, gy, task.target)
    if task.skill == "place":
        almost_done = in_place(item.x, item.y, task.where, margin=-0.03)
        return not almost_done and _is_free(world, gx, gy, task.target)
    if task.skill == "push":
        ux, uy = DIRECTIONS[task.where]
        start = item.x - 0.11 * ux, item.y - 0.11 * uy  # of the gripper, behind the tile
        return (
            max(map(abs, start)) <= 0.26
            and _is_free(world, *start, task.target, 0.12)
            and all(
                _is_free(world, item.x + s * ux, item.y + s * uy, task.target)
                for s in (0.05, 0.10, 0.14)
            )
        )
    return task.skill == "pick" or _is_free(world, gx, gy, task.target)


def feasible_tasks(world: World, skills: tuple[str, ...]) -> list[TabletopTask]:
    """All feasible tasks of a scene in a fixed order, without instructions."""
    tiles = [n for n, i in enumerate(world.items) if i.kind == "tile"]
    cards = [n for n, i in enumerate(world.items) if i.kind == "card"]
    tasks = []
    for skill in skills:
        for t in tiles:
            origin = (world.items[t].x, world.items[t].y)
            others = {"near": [n for n in tiles if n != t], "card": cards}.get(skill, [-1])
            places = {"place": list(PLACES), "push": list(DIRECTIONS)}.get(skill, [""])
            tasks += [TabletopTask(skill, t, o, p, origin) for o in others for p in places]
    return [task for task in tasks if is_feasible(task, world)]


def sample_instruction(task: TabletopTask, world: World, rng: np.random.Generator) -> str:
    """A random template of the skill, filled with the names of the items."""
    table = concepts()
    templates = INSTRUCTION_TEMPLATES[task.skill]
    x = table[world.items[task.target].concept].name
    y = table[world.items[task.other].concept].name if task.other >= 0 else ""
    return templates[int(rng.integers(len(templates)))].format(x=x, y=y, p=task.where)
