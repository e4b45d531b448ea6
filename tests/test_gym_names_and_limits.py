"""Names, limits, actions and instructions of gymnasium environments that could be misread."""

from __future__ import annotations

import json
import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from fake_policies import RecordingPolicy

from vla.benchmarks.checks import compare_bounds
from vla.benchmarks.gym_actions import VectorActions
from vla.benchmarks.gym_make import imported
from vla.benchmarks.recording import record
from vla.errors import ConfigError, DataError
from vla.evaluation.rollout import evaluate, open_benchmark
from vla.evaluation.run import EXPERT, run_eval
from vla.evaluation.slots import _serve
from vla.types import ActionSpace

IMAGE = np.arange(1200, dtype=np.uint8).reshape(20, 20, 3)


class Walk(gym.Env[Any, Any]):
    """Six steps. The instruction changes at step 2; ``info`` of ``reset`` has another one."""

    metadata = {"render_modes": ["rgb_array"]}
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, render_mode: str | None = None, images: bool = True, first: Any = None):
        self.render_mode, self.images, self.first = render_mode, images, first
        space = {"camera": gym.spaces.Box(0, 255, IMAGE.shape, np.uint8)} if images else {}
        self.observation_space = gym.spaces.Dict(space | {"state": gym.spaces.Box(-1, 1, (2,))})

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.steps = 0
        return self._observation(), {"instruction": self.first} if self.first else {0: "number"}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return self._observation(), 1.0, self.steps == 6, False, {"success": False, 7: 1}

    def render(self) -> Any:
        return IMAGE

    def _observation(self) -> Any:
        mission = "walk" if self.steps < 2 else "run"
        images = {"camera": IMAGE} if self.images else {}
        return images | {"state": np.zeros(2, np.float32), "mission": mission}


class Bare(gym.Wrapper[Any, Any, Any, Any]):
    """Hides the specification of an environment."""

    spec = None


def still(env: Any, observation: Any) -> np.ndarray:
    """An expert that does nothing."""
    return np.zeros(2, np.float32)


@pytest.fixture(autouse=True)
def environments() -> Iterator[None]:
    gym.register("Walk-v0", Walk, max_episode_steps=4)
    yield
    del gym.registry["Walk-v0"]


def walk(**options: Any) -> dict[str, Any]:
    return {"name": "gym", "id": "Walk-v0", "expert": f"{__name__}:still"} | options


@pytest.mark.parametrize("name", ["success", "steps", "n", "high", "task"])
def test_scores_may_not_replace_other_columns(name: str) -> None:
    with pytest.raises(ConfigError, match=f"scores.{name}: the results have a column"):
        open_benchmark(walk(scores={name: "sum reward"}))


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"all": {}}, "tasks.all: the group of all tasks has this name"),
        ({"a": {"group": "b"}, "b": {}}, "tasks.b: a group has this name"),
        ({"a": {"group": "all"}}, "tasks.all: the group of all tasks"),
    ],
)
def test_names_of_tasks_and_groups_differ(tasks: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_benchmark(walk(tasks=tasks))


def test_a_wrapper_does_not_hide_the_limit() -> None:
    benchmark = open_benchmark(walk(wrappers=[f"{__name__}:Bare"]))
    assert benchmark.max_steps == 4
    results, _ = evaluate(None, benchmark, benchmark.tasks(), 1, workers=0)
    assert results[0].steps == 4


def test_an_episode_ends_if_its_limit_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vla.benchmarks.gym.MAX_STEPS", 3)
    benchmark = open_benchmark(walk(options={"max_episode_steps": -1}))
    results, _ = evaluate(None, benchmark, benchmark.tasks(), 1, workers=0)
    assert results[0].steps == 3 and benchmark.max_steps == 3


def test_a_new_instruction_ends_an_action_chunk() -> None:
    benchmark = open_benchmark(walk())
    policy = RecordingPolicy(benchmark.action_space, horizon=4)
    results, _ = evaluate(policy, benchmark, benchmark.tasks(), 1, workers=0)
    assert [call.instructions for call in policy.calls] == [["walk"], ["run"]]
    assert results[0].instruction == "walk" and results[0].steps == 4


def test_a_process_sends_images_when_the_instruction_changes() -> None:
    benchmark = open_benchmark(walk())
    ours, theirs = multiprocessing.Pipe()
    thread = threading.Thread(target=_serve, args=(theirs, benchmark))
    thread.start()
    ours.send(("begin", benchmark.tasks()[0], 1, False, False))
    found = [ours.recv()[0]]
    for _ in range(3):
        ours.send(("step", np.zeros(2, np.float32), "", False))
        found.append(ours.recv()[0])
    ours.send(None)
    thread.join()
    assert [bool(o["images"]) for o in found] == [False, False, True, False]


def test_the_instruction_of_reset_keeps_its_precedence() -> None:
    benchmark = open_benchmark(walk(options={"first": "go left"}))
    with closing(benchmark.make_env(benchmark.tasks()[0])) as env:
        texts = [env.reset(seed=1)[0]["instruction"]]
        texts += [env.step(np.zeros(2, np.float32))[0]["instruction"] for _ in range(3)]
    assert texts == ["go left"] * 4


def test_tasks_with_other_images_are_not_recorded_together(tmp_path: Path) -> None:
    tasks = {"a": {}, "b": {"options": {"images": False}}}
    options = [f"{k}={json.dumps(v)}" for k, v in walk(tasks=tasks, success_return=1).items()]
    with pytest.raises(DataError, match="'b' has the images image 20 x 20, task 'a' has camera"):
        record("gym", tmp_path / "data", 1, overrides=options[1:])


def test_other_options_of_the_benchmark_are_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(out: Path, **options: Any) -> str:
        other = tmp_path / "one" / "results.json" if out.name != "one" else None
        arguments = walk(**options), [], None, 2, 1_000_003, out, 1, []
        run_eval(Path(EXPERT), *arguments, compare_to=other, workers=0)
        return capsys.readouterr().err

    run(tmp_path / "one")
    assert "other options of the benchmark" not in run(tmp_path / "two")
    assert "other options of the benchmark" in run(tmp_path / "three", success_return=1)


def test_ranges_are_compared_with_one_bound_too() -> None:
    space = ActionSpace(("x",), ("",), (-np.inf,), (1.0,))
    assert not compare_bounds("actions", [5.0], [5.0], space).passed
    assert compare_bounds("actions", [-5.0], [1.0], space).passed
    for low, high in ((-np.inf, 1.0), (20.0, np.inf), (-np.inf, np.inf), (-np.inf, -30.0)):
        least, most = ActionSpace(("x",), ("",), (low,), (high,)).finite_bounds()
        assert low <= least[0] < most[0] <= high


@pytest.mark.parametrize(
    ("space", "action", "message"),
    [
        (gym.spaces.Discrete(4), -3, "the action is -3, expected whole numbers from 0 to 3"),
        (gym.spaces.Discrete(4, start=2), 1, "from 2 to 5"),
        (gym.spaces.Discrete(4), 1.6, "the action is 1.6"),
        (gym.spaces.MultiDiscrete([2, 3]), [1, 3], "the action is 1 3"),
        (gym.spaces.Box(-1, 1, (2,)), [0.5], "the action has 1 numbers, expected 2"),
        (
            gym.spaces.Dict({"arm": gym.spaces.Box(-1, 1, (2,)), "grip": gym.spaces.Discrete(2)}),
            {"arm": [1.0], "grip": [1, 1]},
            "the action 'arm' has 1 numbers, expected 2",
        ),
    ],
)
def test_actions_that_do_not_exist_are_refused(
    space: gym.Space[Any], action: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        VectorActions(space, 5.0).encode(action)


def test_a_module_that_ends_the_program_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ends_at_once.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="cannot import ends_at_once \\(SystemExit: 0\\)"):
        imported("ends_at_once:expert", "benchmark.expert")
    with pytest.raises(ConfigError, match="SystemExit"):
        open_benchmark({"name": "gym", "id": "ends_at_once:Walk-v0"})
