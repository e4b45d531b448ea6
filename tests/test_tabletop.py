"""The tabletop: determinism, scripted expert, action layouts, plans, errors."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from vla.benchmarks.tabletop.env import MAX_STEPS, Tabletop
from vla.benchmarks.tabletop.expert import expert_command
from vla.benchmarks.tabletop.layouts import LAYOUTS, to_action, to_command
from vla.benchmarks.tabletop.recorder import plan_text
from vla.benchmarks.tabletop.scene import SceneConfig, sample_tasks
from vla.benchmarks.tabletop.tasks import SKILLS, TabletopTask
from vla.benchmarks.tabletop.web.concepts import concepts
from vla.benchmarks.tabletop.world import Command

DIGEST_OF_EPISODES = """
import hashlib, numpy as np
from vla.benchmarks.tabletop.env import Tabletop
env, digest = Tabletop(cameras=("top", "wrist"), size=48), hashlib.sha256()
for seed in range(3):
    env.reset(seed=seed, options={"task": "push"})
    rng = np.random.default_rng(seed)
    for _ in range(12):
        observation, *_ = env.step(rng.uniform(env.space.low, env.space.high))
        for array in (*observation["images"].values(), observation["state"]):
            digest.update(array.tobytes())
print(digest.hexdigest())
"""


def run_expert(env: Tabletop, task: TabletopTask | None = None) -> dict[str, Any]:
    """Drive the environment with the expert for ``task`` (default: its own) to the end."""
    ended, info, steps = False, {}, 0
    while not ended:
        command = expert_command(env.world, task or env.task)
        *_, terminated, truncated, info = env.step(to_action("rt2", command))
        ended, steps = terminated or truncated, steps + 1
    return info | {"steps": steps}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_images_in_two_processes() -> None:
    first, second = (
        subprocess.run(
            [sys.executable, "-c", DIGEST_OF_EPISODES], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    )
    assert first == second and len(first.strip()) == 64


@pytest.mark.parametrize("skill", SKILLS)
def test_the_expert_succeeds_and_terminates(skill: str) -> None:
    env = Tabletop(size=32)
    for seed in range(60):
        env.reset(seed=seed, options={"task": skill})
        info = run_expert(env)
        assert info["success"] and info["correct_termination"] and info["task"] == skill
        assert not info["early_terminations"] and not info["clipped"]
        assert info["steps"] <= MAX_STEPS / 2


@pytest.mark.slow
@pytest.mark.parametrize("skill", SKILLS)
def test_the_expert_succeeds_in_99_percent_of_1000_episodes(skill: str) -> None:
    env, successes = Tabletop(size=16), 0
    for seed in range(1000):
        env.reset(seed=10_000 + seed, options={"task": skill})
        successes += run_expert(env)["success"]
    assert successes >= 990


@pytest.mark.slow
def test_one_core_simulates_500_steps_with_images_per_second() -> None:
    env, best = Tabletop(size=96), 0.0
    for _ in range(3):
        env.reset(seed=0, options={"task": "push"})
        start = time.process_time()
        for n in range(500):
            *_, terminated, truncated, _ = env.step(
                to_action("rt2", expert_command(env.world, env.task))
            )
            if terminated or truncated:
                env.reset(seed=n, options={"task": "push"})
        best = max(best, 500 / (time.process_time() - start))
    assert best >= 500, f"{best:.0f} steps/s"


def test_the_expert_recovers_from_disturbances() -> None:
    rng, successes = np.random.default_rng(0), 0
    for seed in range(60):
        world, (task,) = sample_tasks(SceneConfig(), np.random.default_rng(seed))
        for _ in range(36):
            if task.succeeded(world):
                successes += 1
                break
            c = expert_command(world, task)
            dx, dy = rng.normal(0, 0.015, 2)
            world.step(Command(c.dx + dx, c.dy + dy, c.dz, close=c.close))
    assert successes >= 57


def test_lifting_a_wrong_tile_ends_the_episode_as_failed() -> None:
    env = Tabletop(SceneConfig(skills=("pick",)), size=32)
    env.reset(seed=3)
    wrong = next(
        n for n, i in enumerate(env.world.items) if i.kind == "tile" and n != env.task.target
    )
    info = run_expert(env, TabletopTask("pick", wrong))
    assert info["failed"] and not info["success"]


def test_invalid_actions_raise_and_actions_out_of_range_are_clipped() -> None:
    env = Tabletop(size=32)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"shape \(7,\), expected \(8,\): terminate"):
        env.step(np.zeros(7))
    with pytest.raises(ValueError, match="not finite in dy"):
        env.step(np.array([0, 0, np.nan, 0, 0, 0, 0, 0]))
    before = env.world.gripper.x
    *_, info = env.step(np.array([0, 9.0, 0, 0, 0, 0, 0, 0]))
    assert info["clipped"] == 1 and 0 < env.world.gripper.x - before <= 0.08 + 1e-6


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_action_is_the_inverse_of_its_command(layout: str) -> None:
    command = Command(0.01, -0.02, 0.03, 0.1, -0.1, 0.2, 1.0)
    action = to_action(layout, command)
    assert np.allclose(to_action(layout, to_command(layout, action)), action)
    assert len(action) == LAYOUTS[layout].dim


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gymnasium_makes_the_environment(layout: str) -> None:
    env = gym.make("vla.benchmarks.tabletop:vla/Tabletop-v0", layout=layout, size=32)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    observation, *_ = env.step(env.action_space.low)
    assert env.observation_space.contains(observation)


def test_rt1_base_mode_moves_the_arm_with_the_base() -> None:
    action = np.zeros(11)
    action[7], action[10] = 0.05, 1
    assert to_command("rt1", action).dx == 0.05
    action[10] = 2
    assert to_command("rt1", action).terminate


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cameras": ("front",)}, "unknown camera.*top, wrist"),
        ({"layout": "rt3"}, "rt2 or rt1"),
        ({"scene": {"skills": ("fly",)}}, "choose from pick"),
    ],
)
def test_invalid_options_list_the_choices(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tabletop(**options)


def test_images_show_height_and_aperture() -> None:
    frames = []
    for z, aperture in ((0.1, 1.0), (0.02, 1.0), (0.02, 0.0)):
        env = Tabletop(size=64)
        env.reset(seed=0)
        env.world.gripper.z, env.world.gripper.aperture = z, aperture
        frames.append(hashlib.sha256(env.render().tobytes()).hexdigest())
    assert all(a != b for a, b in pairwise(frames))


def test_a_plan_names_the_item_that_is_next_and_alternatives_share_the_target() -> None:
    table = concepts()
    for seed in range(40):
        world, tasks = sample_tasks(SceneConfig(concepts=64), np.random.default_rng(seed), 5)
        first = tasks[0]
        same_target = [
            t
            for t in tasks[1:]
            if t.target == first.target and t.skill in ("near", "place", "card")
        ]
        assert len(tasks) == 5 and len(same_target) >= 1
        item = world.items[first.target]
        assert plan_text(world, first).startswith(table[item.concept].name)
        world.gripper.grasped, world.gripper.z = first.target, 0.04
        for task in same_target:
            goal = task.where
            if task.skill != "place":
                goal = table[world.items[task.other].concept].name
            assert plan_text(world, task).startswith(goal)
