"""What a policy is tested on beyond what it was shown: the cells of RT-2's Tables 4 and 5 (arXiv 2307.15818) on the tabletop.

Seen: as trained. Generalisation: objects, backgrounds and environments that no demonstration had. Emergent: the words of the instruction, or the
pictures they mean, are in the web data alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vla.sim.render import DARK_TABLES, LIGHT_TABLES, TRAIN_TABLES, Look, sample_look
from vla.sim.scene import SceneConfig, lay, sample_tasks
from vla.sim.tasks import PHRASES, Task, candidates
from vla.sim.world import World
from vla.web.knowledge import concepts, splits
from vla.web.refer import colour_scene, references

ASKING = (
    "pick",
    "near",
    "card",
)  # skills that name a thing which a reference can stand for: what is lifted, or what it is brought to
_TILES = 4
_TRIES = 2000  # scenes
_ALIKE = ("digits", "icons", "flags", "people")  # three of one of them, and something else: the odd one out


@dataclass(frozen=True)
class Cell:
    """One column of a table.

    suite, column: the paper's table and column. meant: groups of ``splits.json`` one of which the thing that is meant comes from (none: the robot's own
    concepts); beside it lies another of its group. tests: kinds of reference, see ``vla.web.refer``; none: the instruction says names. held_out_art,
    tables, tiles, off_camera: what else is new.
    """

    suite: str
    column: str
    meant: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    held_out_art: bool = False
    tables: tuple[str, ...] = TRAIN_TABLES
    tiles: int = _TILES
    off_camera: bool = False


CELLS = {
    "seen": Cell("seen", "seen"),
    "objects_easy": Cell("generalisation", "objects easy", held_out_art=True),
    "objects_hard": Cell("generalisation", "objects hard", ("unseen",), ("name",)),
    "backgrounds_easy": Cell("generalisation", "backgrounds easy", tables=LIGHT_TABLES),
    "backgrounds_hard": Cell("generalisation", "backgrounds hard", tables=DARK_TABLES),
    "environments_easy": Cell("generalisation", "environments easy", tiles=5),
    "environments_hard": Cell("generalisation", "environments hard", off_camera=True),
    "symbol": Cell("emergent", "symbol", ("icons", "digits", "flags"), ("name",)),
    "maths": Cell("emergent", "reasoning", ("digits",), ("sum", "product", "extreme")),
    "category": Cell("emergent", "reasoning", (), ("category",)),
    "odd_one_out": Cell("emergent", "reasoning", (), ("odd",)),
    "language": Cell("emergent", "reasoning", (), ("language",)),
    "country": Cell("emergent", "reasoning", ("flags",), ("capital", "continent")),
    "colour": Cell("emergent", "reasoning", ("shapes",), ("same_colour", "other_colour")),
    "person": Cell("emergent", "person", ("people",), ("name",)),
}
SUITES = {s: [n for n, c in CELLS.items() if c.suite == s] for s in ("seen", "generalisation", "emergent")}
SUITES["all"] = list(CELLS)


def sample_cell(name: str, config: SceneConfig, rng: np.random.Generator) -> tuple[World, Task, Look]:
    """A scene, a task with its instruction, and a look. Skills are those of ``config`` (of the asking ones where a reference is made)."""
    cell = CELLS[name]
    look = sample_look(rng, cell.tables)
    if cell.off_camera:
        shift = tuple(round(float(v), 4) for v in rng.uniform(-0.03, 0.03, 2))
        look = replace(
            look,
            light=round(float(rng.uniform(0.6, 0.85)), 3),
            zoom=round(float(rng.uniform(0.85, 1.15)), 3),
            shift=(shift[0], shift[1]),
        )
    if not cell.tests:
        tiles = config.tiles if cell.tiles == _TILES else (cell.tiles, cell.tiles)
        scene = replace(config, held_out_art=cell.held_out_art, tiles=tiles, cards=(0, 0) if cell.tiles > _TILES else config.cards)
        world, (task,) = sample_tasks(scene, rng, 1)
        return world, task, look
    for _ in range(_TRIES):
        found = _refer(cell, config, rng)
        if found is not None:
            return *found, look
    raise ValueError(
        f"suite cell {name!r}: no scene in {_TRIES} tries with concepts={config.concepts} and skills {', '.join(config.skills)}; give more of either"
    )


def _refer(cell: Cell, config: SceneConfig, rng: np.random.Generator) -> tuple[World, Task] | None:
    """One try at a scene with something that a reference of the cell fits; None if there is none, or if what is asked cannot be done."""
    skills = [s for s in ASKING if s in config.skills]
    if not skills:
        raise ValueError(
            f"suite: emergent cells ask to {', '.join(ASKING)}; this policy was trained on {', '.join(config.skills)} alone"
        )
    skill = skills[int(rng.integers(len(skills)))]
    styles: dict[str, list[str]] = {}
    for key, style in config.pool():
        styles.setdefault(key, []).append(style)
    keys = _keys(cell, sorted(styles), rng)
    fitting = [r for r in references(keys, 0) if r.test in cell.tests]
    tests = sorted({r.test for r in fitting})
    if not tests:
        return None
    test = tests[int(rng.integers(len(tests)))]
    texts = [r.text for r in fitting if r.test == test]
    text = texts[int(rng.integers(len(texts)))]
    order = [*keys[1:], keys[0]] if skill == "card" else keys  # a card lies behind the tiles
    n_tiles = len(keys) - (skill == "card")
    world = lay(order, n_tiles, lambda key: str(rng.choice(styles.get(key, list(config.styles)))), rng)
    at = order.index(keys[0])
    tasks = [t for t in candidates(world, (skill,)) if (t.target if skill == "pick" else t.other) == at]
    if skill != "pick":  # what is moved is something the robot knows
        tasks = [t for t in tasks if world.items[t.target].concept in styles]
    if not tasks:
        return None
    task = tasks[int(rng.integers(len(tasks)))]
    forms = PHRASES[skill]
    moved = text if skill == "pick" else concepts()[world.items[task.target].concept].name
    words = forms[int(rng.integers(len(forms)))].format(x=moved, y=text, p="")
    return world, replace(task, instruction=words)


def _keys(cell: Cell, own: Sequence[str], rng: np.random.Generator) -> list[str]:
    """The concepts of a scene, what is meant first."""
    if "same_colour" in cell.tests:
        return [*colour_scene(rng), str(rng.choice(own))]
    if cell.meant:
        group = splits()[cell.meant[int(rng.integers(len(cell.meant)))]]
        meant = [str(k) for k in rng.choice(group, 2, replace=False)]
        return meant + [str(k) for k in rng.choice(own, cell.tiles - 2, replace=False)]
    if "odd" not in cell.tests:
        return [str(k) for k in rng.choice(own, cell.tiles, replace=False)]
    alike = splits()[_ALIKE[int(rng.integers(len(_ALIKE)))]]
    return [str(rng.choice(own)), *(str(k) for k in rng.choice(alike, cell.tiles - 1, replace=False))]
