"""Evaluation suites after RT-2's Tables 4 and 5 (arXiv 2307.15818).

- seen: as in the demonstrations.
- generalisation: objects, backgrounds and environments that no demonstration has.
- emergent: words or images that only the web data has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vla.benchmarks.tabletop.appearance import (
    DARK_TABLES,
    LIGHT_TABLES,
    TRAIN_TABLES,
    Appearance,
    sample_appearance,
)
from vla.benchmarks.tabletop.scene import SceneConfig, place_items, sample_tasks
from vla.benchmarks.tabletop.tasks import INSTRUCTION_TEMPLATES, TabletopTask, feasible_tasks
from vla.benchmarks.tabletop.web.concepts import concepts, splits
from vla.benchmarks.tabletop.web.references import references, sample_colour_scene
from vla.benchmarks.tabletop.world import World

# Skills whose instruction can hold a reference: to the lifted tile, or to where it is moved
REFERENCE_SKILLS = ("pick", "near", "card")
_TILES = 4  # tiles of a scene
_TRIES = 2000  # scenes drawn before the configuration is refused
_ODD_ONE_OUT_GROUPS = ("digits", "icons", "flags", "people")  # three of one group, one robot object


@dataclass(frozen=True)
class SuiteTask:
    """One task of a suite: how its scenes and instructions differ from those of training."""

    suite: str  # the table and average of the paper
    column: str  # the column of that table; several tasks may share one
    # Groups of ``splits.json`` for the referred item and one other; empty: robot concepts.
    target_groups: tuple[str, ...] = ()
    # Types of reference in the instruction; empty: names of robot concepts, as in training.
    reference_types: tuple[str, ...] = ()
    held_out_art: bool = False
    tables: tuple[str, ...] = TRAIN_TABLES
    tiles: int = _TILES
    move_camera: bool = False  # random light, zoom and shift


SUITE_TASKS = {
    "seen": SuiteTask("seen", "seen"),
    "objects_easy": SuiteTask("generalisation", "objects easy", held_out_art=True),
    "objects_hard": SuiteTask("generalisation", "objects hard", ("unseen",), ("name",)),
    "backgrounds_easy": SuiteTask("generalisation", "backgrounds easy", tables=LIGHT_TABLES),
    "backgrounds_hard": SuiteTask("generalisation", "backgrounds hard", tables=DARK_TABLES),
    "environments_easy": SuiteTask("generalisation", "environments easy", tiles=5),
    "environments_hard": SuiteTask("generalisation", "environments hard", move_camera=True),
    "symbol": SuiteTask("emergent", "symbol", ("icons", "digits", "flags"), ("name",)),
    "maths": SuiteTask("emergent", "reasoning", ("digits",), ("sum", "product", "extreme")),
    "category": SuiteTask("emergent", "reasoning", (), ("category",)),
    "odd_one_out": SuiteTask("emergent", "reasoning", (), ("odd",)),
    "language": SuiteTask("emergent", "reasoning", (), ("language",)),
    "country": SuiteTask("emergent", "reasoning", ("flags",), ("capital", "continent")),
    "colour": SuiteTask("emergent", "reasoning", ("shapes",), ("same_colour", "other_colour")),
    "person": SuiteTask("emergent", "person", ("people",), ("name",)),
}


def sample_suite_task(
    name: str, config: SceneConfig, rng: np.random.Generator
) -> tuple[World, TabletopTask, Appearance]:
    """A random scene of a suite task, its task with an instruction, and its appearance.

    Skills are those of ``config``, limited to ``REFERENCE_SKILLS`` if the task has references.

    Raises:
        ValueError: ``config`` has no such skill or too few concepts.
    """
    rule = SUITE_TASKS[name]
    appearance = sample_appearance(rng, rule.tables)
    if rule.move_camera:
        shift = tuple(round(float(v), 4) for v in rng.uniform(-0.03, 0.03, 2))
        appearance = replace(
            appearance,
            light=round(float(rng.uniform(0.6, 0.85)), 3),
            zoom=round(float(rng.uniform(0.85, 1.15)), 3),
            shift=(shift[0], shift[1]),
        )
    if not rule.reference_types:
        extra_tiles = rule.tiles > _TILES
        scene = replace(
            config,
            held_out_art=rule.held_out_art,
            tiles=(rule.tiles, rule.tiles) if extra_tiles else config.tiles,
            cards=(0, 0) if extra_tiles else config.cards,
        )
        world, (task,) = sample_tasks(scene, rng, 1)
        return world, task, appearance
    for _ in range(_TRIES):
        found = _try_reference_scene(rule, config, rng)
        if found is not None:
            return *found, appearance
    raise ValueError(
        f"task {name!r}: no feasible scene in {_TRIES} tries with scene.concepts="
        f"{config.concepts} and scene.skills {', '.join(config.skills)}; increase either"
    )


def _try_reference_scene(
    rule: SuiteTask, config: SceneConfig, rng: np.random.Generator
) -> tuple[World, TabletopTask] | None:
    """One try: a scene and a task with a reference; None if no reference or task is possible."""
    skills = [s for s in REFERENCE_SKILLS if s in config.skills]
    if not skills:
        raise ValueError(
            f"emergent tasks need one of the skills {', '.join(REFERENCE_SKILLS)}; "
            f"scene.skills has only {', '.join(config.skills)}"
        )
    skill = skills[int(rng.integers(len(skills)))]
    styles = config.styles_by_concept()
    keys = _sample_concepts(rule, sorted(styles), rng)
    fitting = [r for r in references(keys, 0) if r.type in rule.reference_types]
    types = sorted({r.type for r in fitting})
    if not types:
        return None
    reference_type = types[int(rng.integers(len(types)))]
    texts = [r.text for r in fitting if r.type == reference_type]
    text = texts[int(rng.integers(len(texts)))]
    order = [*keys[1:], keys[0]] if skill == "card" else keys  # cards follow the tiles
    n_tiles = len(keys) - (skill == "card")
    world = place_items(
        order, n_tiles, lambda key: str(rng.choice(styles.get(key, list(config.styles)))), rng
    )
    referred = order.index(keys[0])
    tasks = [
        t
        for t in feasible_tasks(world, (skill,))
        if (t.target if skill == "pick" else t.other) == referred
    ]
    if skill != "pick":  # the instruction names the moved tile, so it is a robot concept
        tasks = [t for t in tasks if world.items[t.target].concept in styles]
    if not tasks:
        return None
    task = tasks[int(rng.integers(len(tasks)))]
    templates = INSTRUCTION_TEMPLATES[skill]
    moved = text if skill == "pick" else concepts()[world.items[task.target].concept].name
    instruction = templates[int(rng.integers(len(templates)))].format(x=moved, y=text, p="")
    return world, replace(task, instruction=instruction)


def _sample_concepts(
    rule: SuiteTask, robot_keys: Sequence[str], rng: np.random.Generator
) -> list[str]:
    """The concept keys of a scene; the first is the one that the reference fits."""
    if "same_colour" in rule.reference_types:
        return [*sample_colour_scene(rng), str(rng.choice(robot_keys))]
    if rule.target_groups:
        group = splits()[rule.target_groups[int(rng.integers(len(rule.target_groups)))]]
        members = [str(k) for k in rng.choice(group, 2, replace=False)]
        return members + [str(k) for k in rng.choice(robot_keys, rule.tiles - 2, replace=False)]
    if "odd" not in rule.reference_types:
        return [str(k) for k in rng.choice(robot_keys, rule.tiles, replace=False)]
    group = splits()[_ODD_ONE_OUT_GROUPS[int(rng.integers(len(_ODD_ONE_OUT_GROUPS)))]]
    return [
        str(rng.choice(robot_keys)),
        *(str(k) for k in rng.choice(group, rule.tiles - 1, replace=False)),
    ]
