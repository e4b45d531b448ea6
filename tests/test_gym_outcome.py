"""Success, scores, tasks, states and instructions of any gymnasium environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from fake_policies import RecordingPolicy

from vla.benchmarks import gym_make
from vla.benchmarks.base import EpisodeResult
from vla.benchmarks.recording import BenchmarkSource
from vla.errors import ConfigError, EnvironmentFailed
from vla.evaluation.report import table_rows
from vla.evaluation.rollout import evaluate, open_benchmark

REWARDS = (0.0, 2.0, 1.0)  # of the three steps of an episode
IMAGE = np.full((20, 20, 3), 7, np.uint8)


class Climb(gym.Env[Any, Any]):
    """Three steps; ``info`` has the height, and whether the goal is reached."""

    metadata = {"render_modes": [], "render_fps": 4}
    action_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    observation_space = gym.spaces.Dict({"camera": gym.spaces.Box(0, 255, IMAGE.shape, np.uint8)})

    def __init__(self, offset: float = 0.0, extra: Any = None) -> None:
        self.offset, self.extra = offset, dict(extra or {})

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.steps, self.text = 0, (options or {}).get("text", "climb the hill")
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        reward = REWARDS[self.steps - 1] + self.offset
        info = {"height": {"now": 10.0 * reward}, "reached": reward > 1.5}
        return self._observation(), reward, self.steps == 3, False, info

    def _observation(self) -> Any:
        return {"camera": IMAGE, "mission": self.text, **self.extra}


class Lift(gym.ObservationWrapper[Any, Any, Any]):
    """Makes the images brighter."""

    def __init__(self, env: Any, by: int = 1) -> None:
        super().__init__(env)
        self.by = by

    def observation(self, observation: Any) -> Any:
        return observation | {"camera": observation["camera"] + self.by}


def constant_expert() -> Any:
    """The environment's own action of every step."""
    return lambda env, observation: np.full(3, 0.5, np.float32)


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    gym.register("Climb-v0", Climb)
    yield
    del gym.registry["Climb-v0"]


def run(policy: RecordingPolicy | None = None, **options: Any) -> list[EpisodeResult]:
    benchmark = open_benchmark({"name": "gym", "id": "Climb-v0", **options}, ("camera",))
    policy = policy or RecordingPolicy(cameras=("camera",))
    return evaluate(policy, benchmark, benchmark.tasks(), 1, progress=False)[0]


@pytest.mark.parametrize(
    ("options", "success", "steps"),
    [
        ({}, False, 3),
        ({"success": "reached"}, False, 3),
        ({"success": "reached", "success_at": "any"}, True, 2),
        ({"success_reward": 1.0}, True, 3),
        ({"success_reward": 1.5}, False, 3),
        ({"success_return": 3.0}, True, 3),
        ({"success_return": 3.1}, False, 3),
        ({"success_return": 2.0, "success_at": "any"}, True, 2),
        ({"success_reward": 1.0, "success_return": 3.1}, False, 3),
    ],
)
def test_success_is_an_entry_of_info_or_a_reward(
    options: dict[str, Any], success: bool, steps: int
) -> None:
    (result,) = run(**options)
    assert (result.success, result.steps) == (success, steps)


def test_scores_stand_beside_success_with_their_mean() -> None:
    scores = {"best": "max height/now", "total": "sum reward", "end": "last reward"}
    (result,) = run(scores=scores)
    assert result.metrics == {"best": 20.0, "total": 3.0, "end": 1.0}
    (row,) = table_rows({"mine": [result]})
    assert (row["best"], row["total"], row["end"]) == ("20", "3", "1")
    (plain,) = run()
    assert plain.metrics == {"return": 3.0}
    (mean,) = run(scores={"mean": "mean reward", "least": "min reward"})
    assert mean.metrics == {"mean": pytest.approx(1.0), "least": 0.0}


def test_a_missing_entry_of_info_is_named_with_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"info\['solved'\] is no number.*info has height, reach"):
        run(success="solved")
    with pytest.raises(ConfigError, match=r"no text 'goal' \(instruction_key\).*mission"):
        run(instruction_key="goal")


def test_tasks_have_their_own_instruction_options_and_group() -> None:
    tasks = {
        "low": {"group": "easy"},
        "high": {"group": "easy", "options": {"offset": 2.0}, "reset": {"text": "climb high"}},
    }
    results = run(tasks=tasks, success_reward=2.0)
    assert [(r.task, r.instruction, r.success) for r in results] == [
        ("low", "climb the hill", False),
        ("high", "climb high", True),
    ]
    benchmark = open_benchmark({"name": "gym", "id": "Climb-v0", "tasks": tasks})
    assert benchmark.summarise(results) == {"easy": 0.5}
    assert [t.id for t in benchmark.select([], "easy")] == ["low", "high"]


def test_an_observation_of_one_vector_is_the_state_and_wrappers_are_applied() -> None:
    pytest.importorskip("pygame")  # draws CartPole
    env = open_benchmark({"name": "gym", "id": "CartPole-v1", "instruction": "balance"})
    observation = env.make_env(env.tasks()[0]).reset(seed=0)[0]
    assert observation["state"].shape == (4,) and "image" in observation["images"]
    policy = RecordingPolicy(cameras=("camera",), image_size=(20, 20), state_dim=3)
    wrappers = [f"{__name__}:Lift", {"wrapper": f"{__name__}:Lift", "by": 3}]
    extra = {"joints": np.arange(2.0), "gripper": 0.5}
    run(policy, wrappers=wrappers, options={"extra": extra}, state=["joints", "gripper"])
    assert int(policy.calls[0].images.max()) == 7 + 1 + 3
    assert policy.calls[0].state is not None
    assert policy.calls[0].state.flatten().tolist() == [0.0, 1.0, 0.5]


def test_an_environment_that_cannot_draw_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any) -> Any:
        raise OSError("no display\nfound")

    monkeypatch.setattr("gymnasium.envs.classic_control.CartPoleEnv.render", fail)
    config = {"name": "gym", "id": "CartPole-v1", "instruction": "balance"}
    benchmark = open_benchmark(config, ("camera",))
    policy = RecordingPolicy(benchmark.action_space, cameras=("camera",))
    with pytest.raises(EnvironmentFailed, match=r"CartPole-v1: render.*OSError: no display found"):
        evaluate(policy, benchmark, benchmark.tasks(), 1, progress=False)


def test_an_expert_by_import_path_is_recorded() -> None:
    config = {
        "name": "gym",
        "id": "Climb-v0",
        "success_return": 1.0,
        "cameras": {"front": "camera"},
        "expert": f"{__name__}:constant_expert",
    }
    episode = BenchmarkSource(config, episodes=1)[0]
    assert episode.instruction == "climb the hill" and list(episode.images) == ["front"]
    assert episode.actions.shape == (3, 3) and (episode.actions == 0.5).all() and episode.fps == 4


def test_chunks_are_executed_as_the_options_say(tmp_path: Path) -> None:
    from vla.policies.execution import Execution

    benchmark = open_benchmark({"name": "gym", "id": "Climb-v0"}, ("camera",))
    for execution, calls in ((None, 1), (Execution(1), 3), (Execution(temporal_ensemble=0.01), 3)):
        policy = RecordingPolicy(cameras=("camera",), horizon=4)
        tasks = benchmark.tasks()
        evaluate(policy, benchmark, tasks, 1, progress=False, execution=execution)
        assert len(policy.calls) == calls


@pytest.mark.parametrize(
    ("screen", "library", "present", "chosen"),
    [
        ("", "libEGL.so.1", "", "egl"),
        (":0", "libEGL.so.1", "", ""),
        ("", None, "", ""),
        ("", "libEGL.so.1", "osmesa", "osmesa"),
    ],
)
def test_mujoco_renders_by_egl_where_there_is_no_screen(
    screen: str, library: str | None, present: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vla.benchmarks.gym_make.sys.platform", "linux")
    monkeypatch.setattr("vla.benchmarks.gym_make.find_library", lambda name: library)
    monkeypatch.setenv("DISPLAY", screen)
    monkeypatch.setenv("WAYLAND_DISPLAY", "")
    monkeypatch.setenv("MUJOCO_GL", present)
    gym_make._needs_egl.cache_clear()
    gym_make.make_environment("CartPole-v1", {}).close()
    assert os.environ["MUJOCO_GL"] == chosen
    gym_make._needs_egl.cache_clear()
