"""Physics of the tabletop: planar contacts by pymunk; height, yaw and aperture are kinematic.

Units are metres and radians. x points right, y away from the robot, z up from the table. The
origin is the table's centre. The state is rounded to 1 micrometre after every control step, so
that differences in the last bit between machines cannot grow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pymunk

HALF_TABLE = 0.27  # m; tiles and gripper stay within this distance of the centre, per axis
TILE_SIDE = 0.13  # m
CARD_SIDE = 0.15  # m
FINGER_RADIUS = 0.02  # m; the closed gripper is a disc
HOVER_Z = 0.10  # m; largest height of the gripper
LOW_Z = 0.03  # m; at or below this height the gripper touches tiles
GRASP_RADIUS = 0.05  # m between the centres of gripper and tile
LIFTED_Z = 0.06  # m; a tile at this gripper height counts as lifted
TILT_LIMIT = 0.5  # rad
ARM_REACH = 0.12  # m; the gripper stays within this distance of a mobile base, per axis
_SUBSTEPS = 8  # physics steps per control step
_CONTROL_DT = 0.2  # s, 5 Hz
_DAMPING = 1e-7  # share of the speed left after 1 s: motion is quasi-static
_SETTLED = 5e-4  # m per control step; tiles that move less have settled
_TILE_MASS = 0.1  # kg
_FRICTION = 0.3  # Coulomb coefficient of tiles and gripper


@dataclass
class Item:
    """An image on the table. Poses are in metres and radians."""

    concept: str  # key of ``Concept``
    style: str  # art style
    kind: str  # "tile" (movable) or "card" (flat and fixed)
    x: float
    y: float
    yaw: float
    z: float = 0.0


@dataclass
class Base:
    """Pose of a mobile base in metres and radians, on the axes of the table."""

    x: float
    y: float
    yaw: float = 0.0


@dataclass
class Gripper:
    """Pose of the gripper in metres and radians."""

    x: float = 0.0
    y: float = -0.1
    z: float = HOVER_Z
    roll: float = 0.0
    pitch: float = 0.0
    yaw: float = 0.0
    aperture: float = 1.0  # 1 open, 0 closed
    grasped: int | None = None  # index of the grasped item
    base: Base | None = None  # the arm reaches ``ARM_REACH`` around it; None: the whole table


@dataclass(frozen=True)
class Command:
    """One control step: displacements in metres and radians."""

    dx: float = 0.0
    dy: float = 0.0
    dz: float = 0.0
    droll: float = 0.0
    dpitch: float = 0.0
    dyaw: float = 0.0
    close: float = 0.0  # 1 closed, 0 open
    terminate: bool = False  # the policy reports that the task is done
    base: bool = False  # the base moves and carries the arm; only for a mobile base


def _clamp(value: float, limit: float) -> float:
    return max(-limit, min(limit, value))


@dataclass
class World:
    """State and physics of one table. Only ``step`` changes it."""

    items: list[Item]
    gripper: Gripper = field(default_factory=Gripper)

    def __post_init__(self) -> None:
        self._space = pymunk.Space()
        self._space.damping = _DAMPING
        self._space.iterations = 15
        corners = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
        reach = HALF_TABLE + 0.05  # the walls are 0.05 m thick
        for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
            a, b = (ax * reach, ay * reach), (bx * reach, by * reach)
            self._space.add(pymunk.Segment(self._space.static_body, a, b, 0.05))
        self._bodies: dict[int, pymunk.Body] = {}
        for index, item in enumerate(self.items):
            if item.kind == "tile":
                inertia = pymunk.moment_for_box(_TILE_MASS, (TILE_SIDE, TILE_SIDE))
                body = pymunk.Body(_TILE_MASS, inertia)
                shape = pymunk.Poly.create_box(body, (TILE_SIDE, TILE_SIDE), 0.002)
                shape.friction = _FRICTION
                body.position, body.angle = (item.x, item.y), item.yaw
                self._space.add(body, shape)
                self._bodies[index] = body
        self._finger = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        self._finger_shape = pymunk.Circle(self._finger, FINGER_RADIUS)
        self._finger_shape.friction = _FRICTION
        self._space.add(self._finger, self._finger_shape)
        self._settling = False  # a released tile may overlap another one: contacts separate them

    def step(self, command: Command) -> None:
        """Advance one control step (0.2 s): move, push obstacles, then open or close."""
        g = self.gripper
        old_x, old_y, old_yaw = g.x, g.y, g.yaw
        g.z = max(0.0, min(HOVER_Z, g.z + command.dz))
        self._move_sideways(command)
        g.roll = _clamp(g.roll + command.droll, TILT_LIMIT)
        g.pitch = _clamp(g.pitch + command.dpitch, TILT_LIMIT)
        g.yaw = _clamp(g.yaw + command.dyaw, math.pi)
        turn = g.yaw - old_yaw
        if g.base is not None and command.base:
            g.base.x, g.base.y = g.base.x + g.x - old_x, g.base.y + g.y - old_y
            g.base.yaw += turn
        self._simulate_contacts(old_x, old_y)
        if g.grasped is not None:
            item = self.items[g.grasped]
            item.x, item.y, item.yaw = item.x + g.x - old_x, item.y + g.y - old_y, item.yaw + turn
            item.z = max(0.0, g.z - LOW_Z / 2)
        self._set_aperture(1.0 - max(0.0, min(1.0, command.close)))
        self._round_state()

    def _move_sideways(self, command: Command) -> None:
        """Move the gripper within the table, and within the reach of a base that stands still."""
        g = self.gripper
        x, y = g.x + command.dx, g.y + command.dy
        if g.base is not None and not command.base:
            x = g.base.x + _clamp(x - g.base.x, ARM_REACH)
            y = g.base.y + _clamp(y - g.base.y, ARM_REACH)
        g.x, g.y = _clamp(x, HALF_TABLE), _clamp(y, HALF_TABLE)

    def _simulate_contacts(self, old_x: float, old_y: float) -> None:
        """Run planar physics, but only if the gripper is low and closed or tiles still settle."""
        g = self.gripper
        pushing = g.z <= LOW_Z and g.aperture < 0.5 and g.grasped is None
        if not (pushing or self._settling):
            return
        self._finger_shape.filter = pymunk.ShapeFilter() if pushing else pymunk.ShapeFilter(mask=0)
        for index, body in self._bodies.items():
            mask = 0 if index == g.grasped else pymunk.ShapeFilter.ALL_MASKS()
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
            if index != g.grasped:
                item = self.items[index]
                moved = math.hypot(body.position.x - item.x, body.position.y - item.y)
                self._settling |= moved > _SETTLED
                item.x, item.y, item.yaw = body.position.x, body.position.y, body.angle

    def _set_aperture(self, aperture: float) -> None:
        """Open or close; closing low above a tile grasps the nearest one, opening releases it."""
        g = self.gripper
        closing = g.aperture > 0.5 >= aperture
        g.aperture = aperture
        if g.grasped is not None and aperture > 0.5:
            self.items[g.grasped].z = 0.0
            g.grasped = None
            self._settling = True
        elif closing and g.grasped is None and g.z <= LOW_Z:
            tiles = [
                (math.hypot(self.items[i].x - g.x, self.items[i].y - g.y), i) for i in self._bodies
            ]
            distance, index = min(tiles, default=(math.inf, -1))
            if distance <= GRASP_RADIUS:
                g.grasped = index

    def _round_state(self) -> None:
        for item in self.items:
            item.x, item.y, item.yaw, item.z = (
                round(v, 6) for v in (item.x, item.y, item.yaw, item.z)
            )
        g = self.gripper
        for name in ("x", "y", "z", "roll", "pitch", "yaw", "aperture"):
            setattr(g, name, round(getattr(g, name), 6))
        if g.base is not None:
            g.base = Base(round(g.base.x, 6), round(g.base.y, 6), round(g.base.yaw, 6))
