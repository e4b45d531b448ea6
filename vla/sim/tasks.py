"""Skills of the tabletop: what is asked, in which words, and exactly when it is done."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vla.sim.world import LIFTED_Z, World
from vla.web.knowledge import concepts

NEAR = 0.205  # m between centres; tiles are 0.13 m wide
PUSHED = 0.07  # m along the asked direction
PUSH_DRIFT = 0.06  # m sideways
ON_CARD = 0.055  # m between centres
EDGE = 0.10  # m from the centre line: beyond it is "left", "top" …
CENTRE = 0.08  # m around the centre

DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, 1.0), "down": (0.0, -1.0)}
PLACES = {
    "left": (-1, None), "right": (1, None), "top": (None, 1), "bottom": (None, -1), "centre": (0, 0),
    "top left": (-1, 1), "top right": (1, 1), "bottom left": (-1, -1), "bottom right": (1, -1),
}  # fmt: skip
PLACE_XY = 0.16  # m, where the expert aims

PHRASES = {
    "pick": ("pick the {x}", "pick up the {x}", "lift the {x}", "grasp the {x}"),
    "near": ("move the {x} near the {y}", "bring the {x} close to the {y}", "put the {x} next to the {y}"),
    "place": ("move the {x} to the {p}", "place the {x} at the {p}", "bring the {x} to the {p} of the table"),
    "push": ("push the {x} {p}", "slide the {x} {p}", "nudge the {x} {p}"),
    "card": ("put the {x} on the {y} card", "place the {x} on top of the {y} card", "drop the {x} on the {y} card"),
}
SKILLS = tuple(PHRASES)


@dataclass(frozen=True)
class Task:
    """One instruction about one scene. ``target`` and ``other`` index ``World.items``; ``origin`` is the target's start (m)."""

    skill: str
    target: int
    other: int = -1
    where: str = ""
    origin: tuple[float, float] = (0.0, 0.0)
    instruction: str = ""

    def succeeded(self, world: World) -> bool:
        """The exact predicate, a function of the state alone."""
        return _SUCCESS[self.skill](self, world)

    def failed(self, world: World) -> bool:
        """A wrong tile was lifted: an evaluator would stop the trial."""
        held = world.gripper.held
        return held is not None and held != self.target and world.items[held].z + 1e-9 >= LIFTED_Z / 2


def _free(task: Task, world: World) -> bool:
    return world.gripper.held != task.target


def _pick(task: Task, world: World) -> bool:
    return world.gripper.held == task.target and world.gripper.z >= LIFTED_Z


def _near(task: Task, world: World) -> bool:
    a, b = world.items[task.target], world.items[task.other]
    return _free(task, world) and math.hypot(a.x - b.x, a.y - b.y) <= NEAR


def in_place(x: float, y: float, where: str, margin: float = 0.0) -> bool:
    """Whether a point (m) lies in the named place, ``margin`` m deeper than its border."""

    def axis(value: float, side: int | None) -> bool:
        if side is None:
            return True
        return abs(value) <= CENTRE - margin if side == 0 else value * side >= EDGE + margin

    side_x, side_y = PLACES[where]
    return axis(x, side_x) and axis(y, side_y)


def _place(task: Task, world: World) -> bool:
    item = world.items[task.target]
    return _free(task, world) and in_place(item.x, item.y, task.where)


def _push(task: Task, world: World) -> bool:
    item, (ux, uy) = world.items[task.target], DIRECTIONS[task.where]
    dx, dy = item.x - task.origin[0], item.y - task.origin[1]
    return _free(task, world) and dx * ux + dy * uy >= PUSHED and abs(dx * uy - dy * ux) <= PUSH_DRIFT


def _card(task: Task, world: World) -> bool:
    a, b = world.items[task.target], world.items[task.other]
    return _free(task, world) and math.hypot(a.x - b.x, a.y - b.y) <= ON_CARD


_SUCCESS: dict[str, Callable[[Task, World], bool]] = {
    "pick": _pick, "near": _near, "place": _place, "push": _push, "card": _card,
}  # fmt: skip


def goal_xy(task: Task, world: World) -> tuple[float, float]:
    """Where the target should come to lie (m); for ``push`` the far end of the stroke."""
    item = world.items[task.target]
    if task.skill == "near":
        other = world.items[task.other]
        dx, dy = item.x - other.x, item.y - other.y
        distance = math.hypot(dx, dy)
        if distance < 1e-6:
            dx, dy, distance = 0.0, -1.0, 1.0
        return other.x + 0.165 * dx / distance, other.y + 0.165 * dy / distance
    if task.skill == "place":
        side_x, side_y = PLACES[task.where]
        return item.x if side_x is None else side_x * PLACE_XY, item.y if side_y is None else side_y * PLACE_XY
    if task.skill == "push":
        ux, uy = DIRECTIONS[task.where]
        return task.origin[0] + 0.10 * ux, task.origin[1] + 0.10 * uy
    if task.skill == "card":
        return world.items[task.other].x, world.items[task.other].y
    return item.x, item.y


def _clear(world: World, x: float, y: float, ignore: int, radius: float) -> bool:
    """No tile but ``ignore`` within ``radius`` m of a point."""
    return all(math.hypot(i.x - x, i.y - y) >= radius for n, i in enumerate(world.items) if i.kind == "tile" and n != ignore)


def feasible(task: Task, world: World) -> bool:
    """Whether the task is not already done and can be done without disturbing other tiles."""
    if task.succeeded(world):
        return False
    item, (gx, gy) = world.items[task.target], goal_xy(task, world)
    if max(abs(gx), abs(gy)) > 0.22:
        return False
    if task.skill == "near":
        other = world.items[task.other]
        return math.hypot(item.x - other.x, item.y - other.y) > 0.26 and _clear(world, gx, gy, task.target, 0.15)
    if task.skill == "place":
        near_border = in_place(item.x, item.y, task.where, margin=-0.03)
        return not near_border and _clear(world, gx, gy, task.target, 0.15)
    if task.skill == "push":
        ux, uy = DIRECTIONS[task.where]
        back = item.x - 0.11 * ux, item.y - 0.11 * uy
        lane = all(_clear(world, item.x + s * ux, item.y + s * uy, task.target, 0.15) for s in (0.05, 0.10, 0.14))
        return max(map(abs, back)) <= 0.26 and _clear(world, *back, task.target, 0.12) and lane
    return task.skill == "pick" or _clear(world, gx, gy, task.target, 0.15)


def candidates(world: World, skills: tuple[str, ...]) -> list[Task]:
    """Every feasible task in this scene, without words, in a fixed order."""
    tiles = [n for n, i in enumerate(world.items) if i.kind == "tile"]
    cards = [n for n, i in enumerate(world.items) if i.kind == "card"]
    found = []
    for skill in skills:
        for t in tiles:
            origin = (world.items[t].x, world.items[t].y)
            others = {"near": [n for n in tiles if n != t], "card": cards}.get(skill, [-1])
            places = {"place": list(PLACES), "push": list(DIRECTIONS)}.get(skill, [""])
            found += [Task(skill, t, o, p, origin) for o in others for p in places]
    return [task for task in found if feasible(task, world)]


def phrase(task: Task, world: World, rng: np.random.Generator) -> str:
    """One of the skill's paraphrases with the pictures' names."""
    names = concepts()
    forms = PHRASES[task.skill]
    x = names[world.items[task.target].concept].name
    y = names[world.items[task.other].concept].name if task.other >= 0 else ""
    return forms[int(rng.integers(len(forms)))].format(x=x, y=y, p=task.where)
