"""The tabletop's physics: planar contacts by pymunk, height, yaw and aperture kinematic.

Metres and radians; x to the right, y away from the robot, origin at the table's centre, z up from the table.
After every control step the state is rounded to 1 micrometre, so differences in the last bit between machines cannot grow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import pymunk

HALF_TABLE = 0.27  # m, tiles and gripper stay inside
TILE_SIDE = 0.13  # m
CARD_SIDE = 0.15  # m
FINGER_RADIUS = 0.02  # m, the closed gripper as a disc
HOVER_Z = 0.10  # m, the gripper's ceiling
LOW_Z = 0.03  # m, at or below this the gripper touches tiles
GRASP_RADIUS = 0.05  # m, centre of gripper to centre of tile
LIFTED_Z = 0.06  # m
TILT_LIMIT = 0.5  # rad
_SUBSTEPS = 8
_CONTROL_DT = 0.2  # s, 5 Hz
_TABLE_FRICTION_DAMPING = 1e-7  # share of speed left after 1 s: quasi-static


@dataclass
class Item:
    """A picture on the table: a movable ``tile`` or a flat ``card``. Poses in metres and radians."""

    concept: str
    style: str
    kind: str
    x: float
    y: float
    yaw: float
    z: float = 0.0


@dataclass
class Gripper:
    """Pose of the gripper; ``aperture`` 1 open, 0 closed; ``held`` index of the carried item or None."""

    x: float = 0.0
    y: float = -0.1
    z: float = HOVER_Z
    roll: float = 0.0
    pitch: float = 0.0
    yaw: float = 0.0
    aperture: float = 1.0
    held: int | None = None


@dataclass(frozen=True)
class Command:
    """One canonical control step: displacements in metres and radians, ``close`` 1 closed … 0 open."""

    dx: float = 0.0
    dy: float = 0.0
    dz: float = 0.0
    droll: float = 0.0
    dpitch: float = 0.0
    dyaw: float = 0.0
    close: float = 0.0
    terminate: bool = False


def _clamp(value: float, limit: float) -> float:
    return max(-limit, min(limit, value))


@dataclass
class World:
    """State and physics of one table. Mutated only by ``step``."""

    items: list[Item]
    gripper: Gripper = field(default_factory=Gripper)

    def __post_init__(self) -> None:
        self._space = pymunk.Space()
        self._space.damping = _TABLE_FRICTION_DAMPING
        self._space.iterations = 15
        walls = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
        reach = HALF_TABLE + 0.05
        for (ax, ay), (bx, by) in zip(walls, walls[1:] + walls[:1], strict=True):
            a, b = (ax * reach, ay * reach), (bx * reach, by * reach)
            self._space.add(pymunk.Segment(self._space.static_body, a, b, 0.05))
        self._bodies: dict[int, pymunk.Body] = {}
        for index, item in enumerate(self.items):
            if item.kind == "tile":
                body = pymunk.Body(0.1, pymunk.moment_for_box(0.1, (TILE_SIDE, TILE_SIDE)))
                shape = pymunk.Poly.create_box(body, (TILE_SIDE, TILE_SIDE), 0.002)
                shape.friction = 0.3
                body.position, body.angle = (item.x, item.y), item.yaw
                self._space.add(body, shape)
                self._bodies[index] = body
        self._finger = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        self._finger_shape = pymunk.Circle(self._finger, FINGER_RADIUS)
        self._finger_shape.friction = 0.3
        self._space.add(self._finger, self._finger_shape)
        self._settling = False  # a released tile may overlap another: let contacts resolve

    def step(self, command: Command) -> None:
        """Advance one control step (0.2 s): move, push what is in the way, then open or close."""
        g = self.gripper
        old_x, old_y = g.x, g.y
        g.z = max(0.0, min(HOVER_Z, g.z + command.dz))
        g.x, g.y = _clamp(g.x + command.dx, HALF_TABLE), _clamp(g.y + command.dy, HALF_TABLE)
        g.roll = _clamp(g.roll + command.droll, TILT_LIMIT)
        g.pitch = _clamp(g.pitch + command.dpitch, TILT_LIMIT)
        turned = g.yaw
        g.yaw = _clamp(g.yaw + command.dyaw, math.pi)
        turned = g.yaw - turned
        self._contacts(old_x, old_y)
        if g.held is not None:
            item = self.items[g.held]
            item.x, item.y, item.yaw = item.x + g.x - old_x, item.y + g.y - old_y, item.yaw + turned
            item.z = max(0.0, g.z - LOW_Z / 2)
        self._set_aperture(1.0 - max(0.0, min(1.0, command.close)))
        self._snap()

    def _contacts(self, old_x: float, old_y: float) -> None:
        """Planar physics, run only while something can touch: a low closed gripper, or tiles still settling."""
        g = self.gripper
        pushing = g.z <= LOW_Z and g.aperture < 0.5 and g.held is None
        if not (pushing or self._settling):
            return
        self._finger_shape.filter = pymunk.ShapeFilter() if pushing else pymunk.ShapeFilter(mask=0)
        for index, body in self._bodies.items():
            mask = 0 if index == g.held else pymunk.ShapeFilter.ALL_MASKS()
            for shape in body.shapes:
                shape.filter = pymunk.ShapeFilter(mask=mask)
            item = self.items[index]
            body.position, body.angle = (item.x, item.y), item.yaw
            body.velocity, body.angular_velocity = (0.0, 0.0), 0.0
            self._space.reindex_shapes_for_body(body)
        self._finger.position = (old_x, old_y)
        self._finger.velocity = ((g.x - old_x) / _CONTROL_DT, (g.y - old_y) / _CONTROL_DT)
        for _ in range(_SUBSTEPS):
            self._space.step(_CONTROL_DT / _SUBSTEPS)
        self._settling = False
        for index, body in self._bodies.items():
            if index != g.held:
                item = self.items[index]
                moved = math.hypot(body.position.x - item.x, body.position.y - item.y)
                self._settling |= moved > 5e-4
                item.x, item.y, item.yaw = body.position.x, body.position.y, body.angle

    def _set_aperture(self, aperture: float) -> None:
        g = self.gripper
        closing = g.aperture > 0.5 >= aperture
        g.aperture = aperture
        if g.held is not None and aperture > 0.5:
            self.items[g.held].z = 0.0
            g.held = None
            self._settling = True
        elif closing and g.held is None and g.z <= LOW_Z:
            near = [(math.hypot(self.items[i].x - g.x, self.items[i].y - g.y), i) for i in self._bodies]
            distance, index = min(near, default=(math.inf, -1))
            if distance <= GRASP_RADIUS:
                g.held = index

    def _snap(self) -> None:
        for item in self.items:
            item.x, item.y, item.yaw, item.z = (round(v, 6) for v in (item.x, item.y, item.yaw, item.z))
        g = self.gripper
        for name in ("x", "y", "z", "roll", "pitch", "yaw", "aperture"):
            setattr(g, name, round(getattr(g, name), 6))

    def snapshot(self) -> tuple[list[Item], Gripper]:
        """A copy of the visible state, for rendering later or for comparing."""
        return [replace(i) for i in self.items], replace(self.gripper)
