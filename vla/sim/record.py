"""Demonstrations: the expert on the tabletop, as episodes for ``vla pack``."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from vla.data.pictures import encode_image
from vla.schema import Episode
from vla.sim.expert import expert_command, waypoint
from vla.sim.layouts import LAYOUTS, to_action
from vla.sim.render import VIEW, sample_look
from vla.sim.scene import SceneConfig, sample_tasks
from vla.sim.tabletop import CAMERAS, STEP_LIMIT
from vla.sim.tasks import Task
from vla.sim.world import LOW_Z, World
from vla.web.knowledge import concepts

PLAN_BINS = 256  # a plan names places as "x y" in the action vocabulary, from left to right and from bottom to top
TERMINATE_FRAMES = 2  # frames recorded after success, so that "terminate" is not too rare to learn


def _label_is_clear(world: World, task: Task) -> bool:
    """Whether an alternative instruction makes sense here: nothing wrong in the gripper, and a push not half done."""
    if world.gripper.held not in (None, task.target):
        return False
    item = world.items[task.target]
    moved = abs(item.x - task.origin[0]) + abs(item.y - task.origin[1])
    return task.skill != "push" or (moved < 0.01 and world.gripper.held is None)


def _place(x: float, y: float) -> str:
    """A point (m) in the words of the web's "where is ...?" questions: ``143 97``."""
    return " ".join(str(min(PLAN_BINS - 1, max(0, math.floor((v / VIEW + 0.5) * PLAN_BINS)))) for v in (x, y))


def plan_text(world: World, task: Task) -> str:
    """What the robot heads for, where that is, and, where it stops beside it, where it stops: ``drum 143 97 120 90``. The name comes first: which of
    an instruction's two things counts now is decided in words, and its place is then what the web asks for."""
    item, held = world.items[task.target], world.gripper.held
    stop = _place(*waypoint(world, task))
    if task.succeeded(world) or held not in (None, task.target):
        return f"{'done' if task.succeeded(world) else 'wrong'} {stop}"
    if held is None or task.skill in ("pick", "push"):
        name, place = concepts()[item.concept].name, _place(item.x, item.y)
    elif task.other >= 0:
        other = world.items[task.other]
        name, place = concepts()[other.concept].name, _place(other.x, other.y)
    else:
        name, place = task.where, stop
    return f"{name} {place}" if place == stop else f"{name} {place} {stop}"


def _shove(world: World, noise: float, rng: np.random.Generator) -> np.ndarray:
    """What disturbs the executed displacement (m): mostly little, now and then a lot, so that recoveries are seen; in height only
    when something is carried; nothing when low, where a tile could be knocked away."""
    size = noise * (4.0 if rng.random() < 0.15 else 1.0)
    x, y, z = rng.normal(0.0, size, 3) if noise else np.zeros(3)
    if world.gripper.held is not None:
        return np.array([x, y, 2 * z])
    return np.array([x, y, z / 2]) if world.gripper.z > LOW_Z else np.zeros(3)


def record_episode(
    scene: SceneConfig, seed: int, index: int, cameras: tuple[str, ...], size: int, layout: str, noise: float, alternatives: int
) -> Episode:
    """One expert episode, a function of its arguments alone.

    noise: standard deviation (m) of what is added to the executed displacement, see ``_shove``; the recorded action stays the expert's answer to the state
    reached (as in DART, arXiv 1703.09327). alternatives: further instructions labelled by the same expert in the same states.
    """
    rng = np.random.default_rng([seed, index])
    world, tasks = sample_tasks(scene, rng, 1 + alternatives)
    look = sample_look(rng)
    images: dict[str, list[bytes]] = {c: [] for c in cameras}
    actions, states, rewards, others, masks = [], [], [], [], []
    plans: list[list[str]] = [[] for _ in tasks]
    after_success = 0
    for _ in range(STEP_LIMIT):
        for camera in cameras:
            images[camera].append(encode_image(CAMERAS[camera](world.items, world.gripper, look, size)))
        g = world.gripper
        states.append([g.x, g.y, g.z, g.roll, g.pitch, g.yaw, g.aperture])
        done = tasks[0].succeeded(world)
        command = expert_command(world, tasks[0])
        actions.append(to_action(layout, command))
        rewards.append(float(done))
        others.append([to_action(layout, expert_command(world, t)) for t in tasks[1:]])
        masks.append([_label_is_clear(world, t) for t in tasks[1:]])
        for task, lines in zip(tasks, plans, strict=True):
            lines.append(plan_text(world, task))
        after_success += done
        if after_success >= TERMINATE_FRAMES:
            break
        shove = _shove(world, noise, rng)
        world.step(replace(command, dx=command.dx + shove[0], dy=command.dy + shove[1], dz=command.dz + shove[2]))
    width = LAYOUTS[layout].dim
    return Episode(
        key=f"{index:07d}",
        instruction=tasks[0].instruction,
        images=images,
        actions=np.array(actions, np.float32),
        state=np.array(states, np.float32),
        rewards=np.array(rewards, np.float32),
        plans=plans[0],
        alternatives=[t.instruction for t in tasks[1:]],
        alternative_plans=plans[1:],
        alternative_actions=np.array(others, np.float32).reshape(len(actions), -1, width),
        alternative_mask=np.array(masks, bool).reshape(len(actions), -1),
        robot="tabletop",
        fps=LAYOUTS[layout].rate_hz,
        source="expert",
        info={
            "skill": tasks[0].skill,
            "recording": [seed, index, alternatives],
            "concepts": sorted({i.concept for i in world.items}),
            "art": [f"{i.concept}:{i.style}" for i in world.items],
        },
    )
