"""Random scenes: what lies where on which table."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vla.sim.tasks import SKILLS, Task, candidates, phrase
from vla.sim.world import HOVER_Z, Gripper, Item, World
from vla.web.knowledge import robot_concepts, splits
from vla.web.pictures import STYLES

_SPREAD = 0.205  # m, tile centres lie within this of the table's centre
_SEPARATION = 0.16  # m between centres


CARRYING = ("near", "place", "card")  # skills that go on after the tile is lifted


@dataclass(frozen=True)
class SceneConfig:
    """What may be asked and shown.

    skills: subset of ``SKILLS``; tiles, cards: inclusive ranges of their number; concepts: how many of the committed robot
    concepts; styles: art styles; held_out_art: show the art styles that are held out from robot data instead.
    """

    skills: tuple[str, ...] = SKILLS
    tiles: tuple[int, int] = (4, 4)
    cards: tuple[int, int] = (0, 2)
    concepts: int = 80
    styles: tuple[str, ...] = STYLES
    held_out_art: bool = False

    def __post_init__(self) -> None:
        for field_name, allowed in (("skills", SKILLS), ("styles", STYLES)):
            value = getattr(self, field_name)
            unknown = [v for v in value if v not in allowed]
            if unknown or not value:
                raise ValueError(f"scene.{field_name}={list(value)}: choose from {', '.join(allowed)}")
        robot_concepts(self.concepts)

    def pool(self) -> list[tuple[str, str]]:
        """Allowed (concept key, style) pairs."""
        held_out = set(splits()["held_out_art"])
        keys = [c.key for c in robot_concepts(self.concepts)]
        return [(k, s) for k in keys for s in self.styles if (f"{k}:{s}" in held_out) == self.held_out_art]


def _positions(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, 2) points in metres, pairwise at least the separation apart."""
    while True:
        points: list[np.ndarray] = []
        for _ in range(60 * n):
            p = rng.uniform(-_SPREAD, _SPREAD, 2)
            if all(math.hypot(*(p - q)) >= _SEPARATION for q in points):
                points.append(p)
                if len(points) == n:
                    return np.round(np.array(points), 6)


def lay(chosen: list[str], n_tiles: int, art: Callable[[str], str], rng: np.random.Generator) -> World:
    """These concepts somewhere on a table, the first ``n_tiles`` as tiles, the others as cards, and a gripper somewhere above it. art: concept key to
    its style."""
    items = []
    for n, (key, (x, y)) in enumerate(zip(chosen, _positions(len(chosen), rng), strict=True)):
        style = art(key)
        yaw = float(np.round(rng.uniform(-0.3, 0.3), 6)) if n < n_tiles else 0.0
        items.append(Item(key, style, "tile" if n < n_tiles else "card", float(x), float(y), yaw))
    gx, gy = np.round(rng.uniform(-0.24, 0.24, 2), 6)
    z = round(float(rng.uniform(0.06, HOVER_Z)), 6)
    return World(items, Gripper(float(gx), float(gy), z, aperture=float(rng.integers(2))))


def sample_world(config: SceneConfig, rng: np.random.Generator) -> World:
    """A table with distinct concepts and a gripper somewhere above it."""
    n_tiles = int(rng.integers(config.tiles[0], config.tiles[1] + 1))
    n_cards = int(rng.integers(config.cards[0], config.cards[1] + 1))
    by_key: dict[str, list[str]] = {}
    for key, style in config.pool():
        by_key.setdefault(key, []).append(style)
    if n_tiles + n_cards > len(by_key):
        raise ValueError(f"scene needs {n_tiles + n_cards} distinct concepts but only {len(by_key)} have allowed art")
    chosen = [str(k) for k in rng.choice(sorted(by_key), n_tiles + n_cards, replace=False)]
    return lay(chosen, n_tiles, lambda key: by_key[key][int(rng.integers(len(by_key[key])))], rng)


def sample_tasks(
    config: SceneConfig, rng: np.random.Generator, count: int = 1, skill: str | None = None
) -> tuple[World, list[Task]]:
    """A scene and up to ``count`` different feasible tasks; the first has the drawn (or given) skill, uniform over skills.

    Half of the others are about the same tile: once it is carried, only they differ in what they ask, so only they teach to listen to the rest of
    the instruction.
    """
    from dataclasses import replace

    asked = skill or config.skills[int(rng.integers(len(config.skills)))]
    while True:
        scene = config if asked != "card" or config.cards[0] > 0 else replace(config, cards=(1, max(1, config.cards[1])))
        world = sample_world(scene, rng)
        first = candidates(world, (asked,))
        if not first:
            continue
        tasks = [first[int(rng.integers(len(first)))]]
        rest = [t for t in candidates(world, config.skills) if t != tasks[0]] if count > 1 else []
        same = [t for t in rest if t.target == tasks[0].target and t.skill in CARRYING]
        for _ in range(min(len(same), (count - 1) // 2)):
            tasks.append(same.pop(int(rng.integers(len(same)))))
        rest = [t for t in rest if t not in tasks]
        by_skill: dict[str, list[Task]] = {}
        for t in rest:
            by_skill.setdefault(t.skill, []).append(t)
        while len(tasks) < count and by_skill:
            name = sorted(by_skill)[int(rng.integers(len(by_skill)))]
            tasks.append(by_skill[name].pop(int(rng.integers(len(by_skill[name])))))
            if not by_skill[name]:
                del by_skill[name]
        return world, [replace(t, instruction=phrase(t, world, rng)) for t in tasks]
