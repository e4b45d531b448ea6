"""Random scenes: the items on the table and the tasks that are feasible with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from vla.benchmarks.tabletop.tasks import (
    SKILLS,
    TabletopTask,
    feasible_tasks,
    sample_instruction,
)
from vla.benchmarks.tabletop.web.art import STYLES
from vla.benchmarks.tabletop.web.concepts import robot_concepts, splits
from vla.benchmarks.tabletop.world import HOVER_Z, Gripper, Item, World

_SPREAD = 0.205  # m; largest distance of an item's centre from the table's centre, per axis
_SEPARATION = 0.16  # m; smallest distance between the centres of two items
_CARRYING_SKILLS = ("near", "place", "card")  # skills that go on after the tile is lifted


@dataclass(frozen=True)
class SceneConfig:
    """The skills and items of random scenes."""

    skills: tuple[str, ...] = SKILLS  # subset of pick, near, place, push, card
    tiles: tuple[int, int] = (4, 4)  # smallest and largest number of tiles
    cards: tuple[int, int] = (0, 2)  # smallest and largest number of cards
    concepts: int = 80  # the first N robot concepts of ``splits.json``, 1 to 80
    styles: tuple[str, ...] = STYLES  # art styles: subset of noto, twemoji, openmoji
    # True: only the art that robot data never shows; False: only the other art.
    held_out_art: bool = False

    def __post_init__(self) -> None:
        for field_name, allowed in (("skills", SKILLS), ("styles", STYLES)):
            value = getattr(self, field_name)
            unknown = [v for v in value if v not in allowed]
            if unknown or not value:
                raise ValueError(
                    f"scene.{field_name}={list(value)}: choose from {', '.join(allowed)}"
                )
        robot_concepts(self.concepts)

    def styles_by_concept(self) -> dict[str, list[str]]:
        """The allowed art styles by concept key, in the order of ``splits.json``."""
        held_out = set(splits()["held_out_art"])
        allowed: dict[str, list[str]] = {}
        for concept in robot_concepts(self.concepts):
            for style in self.styles:
                if (f"{concept.key}:{style}" in held_out) == self.held_out_art:
                    allowed.setdefault(concept.key, []).append(style)
        return allowed


def _sample_positions(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, 2) points in metres, pairwise at least ``_SEPARATION`` apart."""
    while True:
        points: list[np.ndarray] = []
        for _ in range(60 * n):
            p = rng.uniform(-_SPREAD, _SPREAD, 2)
            if all(math.hypot(*(p - q)) >= _SEPARATION for q in points):
                points.append(p)
                if len(points) == n:
                    return np.round(np.array(points), 6)


def place_items(
    keys: list[str], n_tiles: int, style_of: Callable[[str], str], rng: np.random.Generator
) -> World:
    """A world with these concepts and the gripper at random positions.

    Args:
        keys: concept keys; the first ``n_tiles`` become tiles, the others cards.
        style_of: the art style for a concept key.
    """
    items = []
    for n, (key, (x, y)) in enumerate(zip(keys, _sample_positions(len(keys), rng), strict=True)):
        style = style_of(key)
        yaw = float(np.round(rng.uniform(-0.3, 0.3), 6)) if n < n_tiles else 0.0
        items.append(Item(key, style, "tile" if n < n_tiles else "card", float(x), float(y), yaw))
    gx, gy = np.round(rng.uniform(-0.24, 0.24, 2), 6)
    z = round(float(rng.uniform(0.06, HOVER_Z)), 6)
    return World(items, Gripper(float(gx), float(gy), z, aperture=float(rng.integers(2))))


def sample_world(config: SceneConfig, rng: np.random.Generator) -> World:
    """A random world in which all items show different concepts.

    Raises:
        ValueError: fewer concepts than items.
    """
    n_tiles = int(rng.integers(config.tiles[0], config.tiles[1] + 1))
    n_cards = int(rng.integers(config.cards[0], config.cards[1] + 1))
    styles = config.styles_by_concept()
    if n_tiles + n_cards > len(styles):
        raise ValueError(
            f"scene: {n_tiles + n_cards} items need different concepts, but only {len(styles)} "
            "have allowed art; increase scene.concepts"
        )
    keys = [str(k) for k in rng.choice(sorted(styles), n_tiles + n_cards, replace=False)]
    return place_items(
        keys, n_tiles, lambda key: styles[key][int(rng.integers(len(styles[key])))], rng
    )


def sample_tasks(
    config: SceneConfig, rng: np.random.Generator, count: int = 1, skill: str | None = None
) -> tuple[World, list[TabletopTask]]:
    """A random world and up to ``count`` different feasible tasks.

    The first task has the given skill, or a uniformly drawn one. Half of the others move the same
    tile. Once it is carried, only these tasks need different actions, so they teach the policy to
    use the rest of the instruction.
    """
    chosen = skill or config.skills[int(rng.integers(len(config.skills)))]
    if chosen == "card" and config.cards[0] == 0:
        config_with_card = replace(config, cards=(1, max(1, config.cards[1])))
    else:
        config_with_card = config
    while True:
        world = sample_world(config_with_card, rng)
        first = feasible_tasks(world, (chosen,))
        if first:
            break
    tasks = [first[int(rng.integers(len(first)))]]
    if count > 1:
        tasks += _sample_alternatives(tasks[0], world, config.skills, count - 1, rng)
    return world, [replace(t, instruction=sample_instruction(t, world, rng)) for t in tasks]


def _sample_alternatives(
    task: TabletopTask,
    world: World,
    skills: tuple[str, ...],
    count: int,
    rng: np.random.Generator,
) -> list[TabletopTask]:
    """Up to ``count`` feasible tasks that differ from ``task``; half of them move its target."""
    rest = [t for t in feasible_tasks(world, skills) if t != task]
    same = [t for t in rest if t.target == task.target and t.skill in _CARRYING_SKILLS]
    tasks = [same.pop(int(rng.integers(len(same)))) for _ in range(min(len(same), count // 2))]
    by_skill: dict[str, list[TabletopTask]] = {}
    for t in rest:
        if t not in tasks:
            by_skill.setdefault(t.skill, []).append(t)
    while len(tasks) < count and by_skill:
        name = sorted(by_skill)[int(rng.integers(len(by_skill)))]
        tasks.append(by_skill[name].pop(int(rng.integers(len(by_skill[name])))))
        if not by_skill[name]:
            del by_skill[name]
    return tasks
