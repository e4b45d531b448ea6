"""Demonstrations of the scripted expert with alternative instructions, plans and disturbances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vla.benchmarks.tabletop.appearance import sample_appearance
from vla.benchmarks.tabletop.env import CAMERAS, MAX_STEPS, add_base, gripper_state
from vla.benchmarks.tabletop.expert import expert_command, waypoint
from vla.benchmarks.tabletop.layouts import LAYOUTS, to_action
from vla.benchmarks.tabletop.render import TOP_VIEW
from vla.benchmarks.tabletop.scene import SceneConfig, sample_tasks
from vla.benchmarks.tabletop.tasks import TabletopTask
from vla.benchmarks.tabletop.web.concepts import concepts
from vla.benchmarks.tabletop.world import LOW_Z, World
from vla.data.images import encode_image
from vla.data.locations import location_text
from vla.types import Episode

TERMINATE_FRAMES = 2  # frames recorded after success; with one, "terminate" is too rare to learn
_LARGE_DISTURBANCE = (0.15, 4.0)  # probability and factor of a large disturbance
_PUSH_STARTED = 0.01  # m; a tile that moved more cannot be the target of another push


def _alternative_is_valid(world: World, task: TabletopTask) -> bool:
    """True if an alternative task can start in this state.

    The gripper holds no other tile, and the target of a push has not moved yet.
    """
    if world.gripper.grasped not in (None, task.target):
        return False
    if task.skill != "push":
        return True
    item = world.items[task.target]
    moved = abs(item.x - task.origin[0]) + abs(item.y - task.origin[1])
    return moved < _PUSH_STARTED and world.gripper.grasped is None


def _point_text(x: float, y: float) -> str:
    return location_text(x / TOP_VIEW + 0.5, y / TOP_VIEW + 0.5)


def plan_text(world: World, task: TabletopTask) -> str:
    """The plan: the next item, its location, and the waypoint if it is elsewhere.

    For example ``drum 143 97 120 90``. The name comes first: choosing between the two items of an
    instruction is a language step, and finding the location is a question of the web data.
    """
    item, grasped = world.items[task.target], world.gripper.grasped
    goal = _point_text(*waypoint(world, task))
    if task.succeeded(world):
        return f"done {goal}"
    if grasped not in (None, task.target):
        return f"wrong {goal}"
    if grasped is None or task.skill in ("pick", "push"):
        name, location = concepts()[item.concept].name, _point_text(item.x, item.y)
    elif task.other >= 0:
        other = world.items[task.other]
        name, location = concepts()[other.concept].name, _point_text(other.x, other.y)
    else:
        name, location = task.where, goal
    return f"{name} {location}" if location == goal else f"{name} {location} {goal}"


def _disturbance(world: World, noise: float, rng: np.random.Generator) -> np.ndarray:
    """A random displacement (3,) in metres that is added to the executed command.

    Most are small and some are large, so that the data has recoveries. Height is disturbed more
    while a tile is carried. There is no disturbance near the table, where it could move a tile.
    """
    probability, factor = _LARGE_DISTURBANCE
    size = noise * (factor if rng.random() < probability else 1.0)
    x, y, z = rng.normal(0.0, size, 3) if noise else np.zeros(3)
    if world.gripper.grasped is not None:
        return np.array([x, y, 2 * z])
    return np.array([x, y, z / 2]) if world.gripper.z > LOW_Z else np.zeros(3)


def record_episode(
    scene: SceneConfig,
    seed: int,
    index: int,
    cameras: tuple[str, ...],
    size: int,
    layout: str,
    noise: float,
    alternatives: int,
    mobile_base: bool = False,
) -> Episode:
    """One episode of the expert; it depends on the arguments alone.

    Args:
        noise: standard deviation (m) of the disturbance of the executed command. The recorded
            action is the expert's command in the state reached (DART, arXiv 1703.09327).
        alternatives: further tasks whose actions the expert labels in the same states.
        mobile_base: the arm's reach is limited, and the base moves.
    """
    rng = np.random.default_rng([seed, index])
    world, tasks = sample_tasks(scene, rng, 1 + alternatives)
    if mobile_base:
        add_base(world)
    appearance = sample_appearance(rng)
    task, other_tasks = tasks[0], tasks[1:]
    images: dict[str, list[bytes]] = {c: [] for c in cameras}
    actions, states, rewards, other_actions, masks = [], [], [], [], []
    plans: list[list[str]] = [[] for _ in tasks]
    frames_after_success = 0
    for _ in range(MAX_STEPS):
        for camera in cameras:
            image = CAMERAS[camera](world.items, world.gripper, appearance, size)
            images[camera].append(encode_image(image))
        states.append(gripper_state(world.gripper))
        done, command = task.succeeded(world), expert_command(world, task)
        actions.append(to_action(layout, command))
        rewards.append(float(done))
        other_actions.append([to_action(layout, expert_command(world, t)) for t in other_tasks])
        masks.append([_alternative_is_valid(world, t) for t in other_tasks])
        for t, texts in zip(tasks, plans, strict=True):
            texts.append(plan_text(world, t))
        frames_after_success += done
        if frames_after_success >= TERMINATE_FRAMES:
            break
        dx, dy, dz = _disturbance(world, noise, rng)
        world.step(replace(command, dx=command.dx + dx, dy=command.dy + dy, dz=command.dz + dz))
    length, space = len(actions), LAYOUTS[layout]
    return Episode(
        key=f"{index:07d}",
        instruction=task.instruction,
        images=images,
        actions=np.array(actions, np.float32),
        state=np.array(states, np.float32),
        rewards=np.array(rewards, np.float32),
        plans=plans[0],
        alternatives=[t.instruction for t in other_tasks],
        alternative_plans=plans[1:],
        alternative_actions=np.array(other_actions, np.float32).reshape(length, -1, space.dim),
        alternative_mask=np.array(masks, bool).reshape(length, -1),
        robot="tabletop",
        fps=space.rate_hz,
        source="expert",
        info={
            "task": task.skill,
            "reset_options": {"recording": [seed, index, alternatives]},
            "concepts": sorted({i.concept for i in world.items}),
            "tags": [f"{i.concept}:{i.style}" for i in world.items],
        },
    )
