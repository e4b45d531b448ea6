"""Recording, limits and instructions of gymnasium environments that users write themselves."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from command_line import call

from vla.benchmarks import gym as gym_benchmark
from vla.benchmarks.check_run import run_checks
from vla.benchmarks.gym_make import imported
from vla.benchmarks.recording import record
from vla.data.manifest import load_manifest
from vla.data.packed import iter_samples
from vla.data.samples import read_instructions, read_json, read_steps
from vla.data.splits import resplit
from vla.errors import BadSample, ConfigError, DataError, EnvironmentFailed
from vla.evaluation.replay import replay
from vla.evaluation.rollout import evaluate, open_benchmark
from vla.utils import notes


class Line(gym.Env[Any, Any]):
    """A position (1,) that reaches 1 in steps of at most 0.25."""

    metadata = {"render_modes": []}
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, text: str = "always", side: int = 20, state: str = "state") -> None:
        self.text, self.state = text, state
        self.sizes = {"front": (20, 20, 3), "side": (side, 20, 3)}
        self.observation_space = gym.spaces.Dict(
            {name: gym.spaces.Box(0, 255, size, np.uint8) for name, size in self.sizes.items()}
        )

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps, self.at = 0, np.zeros(1, np.float32)
        self.name = "reach the end" if self.text == "same" else f"reach the end {seed}"
        return self._observation(), {"instruction": self.name} if self.text == "reset" else {}

    def step(self, action: Any) -> Any:
        self.steps, self.at = self.steps + 1, self.at + 0.25 * action
        done = bool(self.at[0] >= 1)
        reward = np.array([1.0]) if self.text == "reward" else 1.0
        return self._observation(), reward, done, False, {"success": done}

    def _observation(self) -> dict[str, Any]:
        images = {
            name: np.resize(np.arange(251, dtype=np.uint8) + self.steps, size)
            for name, size in self.sizes.items()
        }
        text = "now hurry up" if self.text == "changes" and self.steps >= 2 else self.name
        given = {} if self.text in ("reset", "none") else {"instruction": text}
        return images | {self.state: self.at.copy()} | given


class Hasty:
    """An expert that leaves the bounds of the actions."""

    def __call__(self, env: Any, observation: Any) -> np.ndarray:
        return np.array([3.0], np.float32)


def plain(env: Any, observation: Any) -> np.ndarray:
    """An expert that is one function for all episodes."""
    return np.ones(1, np.float32)


def broken() -> Any:
    raise RuntimeError("no plan")


def idle() -> Any:
    return lambda env, observation: np.zeros(1, np.float32)


nothing = 7


@pytest.fixture(autouse=True)
def environments() -> Iterator[None]:
    notes.note.cache_clear()
    gym.register("Line-v0", Line)
    gym.register("Short-v0", Line, max_episode_steps=5)
    yield
    del gym.registry["Line-v0"], gym.registry["Short-v0"]


def given(expert: str = "Hasty", **options: Any) -> list[str]:
    settings = {"id": "Line-v0", "expert": f"{__name__}:{expert}", "options": options}
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


@pytest.mark.parametrize("order", [("short", "line"), ("line", "short")])
def test_each_task_has_the_limit_of_its_environment(
    order: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gym_benchmark, "MAX_STEPS", 9)
    ids = {"short": "Short-v0", "line": "Line-v0"}
    tasks = {name: {"id": ids[name]} for name in order}
    config = {"name": "gym", "id": "Line-v0", "expert": f"{__name__}:idle", "tasks": tasks}
    benchmark = open_benchmark(config)
    results, _ = evaluate(None, benchmark, benchmark.tasks(), 1, workers=0)
    assert {r.task: r.steps for r in results} == {"short": 5, "line": 9}
    assert benchmark.max_steps == 9


def test_a_task_that_is_named_twice_is_evaluated_once() -> None:
    tasks = {name: {"group": "both"} for name in ("a", "b")}
    benchmark = open_benchmark({"name": "gym", "id": "Line-v0", "tasks": tasks})
    assert [t.id for t in benchmark.select(["b", "both", "b"], "both")] == ["b", "a"]


def test_an_instruction_of_reset_holds_for_its_episode_only(tmp_path: Path) -> None:
    benchmark = open_benchmark({"name": "gym", "id": "Line-v0", "options": {"text": "reset"}})
    with closing(benchmark.make_env(benchmark.tasks()[0])) as env:
        for seed in (3, 4):
            assert env.reset(seed=seed)[0]["instruction"] == f"reach the end {seed}"
            for _ in range(2):
                found = env.step(np.zeros(1, np.float32))[0]["instruction"]
                assert found == f"reach the end {seed}"


def test_recordings_have_what_was_executed_and_every_instruction(tmp_path: Path) -> None:
    record("gym", tmp_path / "data", 2, overrides=given(text="changes"))
    for sample in iter_samples(tmp_path / "data"):
        actions = read_steps(sample)["actions"]
        assert actions.tolist() == [[1.0]] * 4
        first = f"reach the end {read_json(sample)['info']['seed']}"
        texts = read_instructions(read_json(sample), len(actions))
        assert texts == [first, first, "now hurry up", "now hurry up"]


def test_replay_has_the_validation_episodes_too(tmp_path: Path) -> None:
    record("gym", tmp_path / "data", 4, overrides=given(text="same"))
    resplit(tmp_path / "data", 0.5)
    assert len(list(iter_samples(tmp_path / "data", "val"))) == 2
    results, differences, _ = replay(tmp_path / "data", {}, 4)
    assert sorted(r.seed for r in results) == [0, 1, 2, 3] and set(differences) == {0.0}


def test_bench_check_compares_recorded_actions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    record("gym", tmp_path / "data", 1, overrides=[*given(), "clip_actions=false"])
    assert not run_checks("gym", given(), None, None, tmp_path / "data", 1)
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if "data: recorded actions" in line)
    assert "FAIL" in row and "action_0 3 to 3" in row


def test_an_expert_may_be_a_plain_function(tmp_path: Path) -> None:
    record("gym", tmp_path / "data", 1, overrides=given("plain"))
    assert load_manifest(tmp_path / "data").statistics["actions"]["max"] == [1.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (given("broken"), r"broken\(\) failed \(RuntimeError: no plan\)"),
        (given("nothing"), "nothing is int, not a function or class"),
        (given("idle"), "the expert of task 'Line-v0' failed in 10 attempts .* --task"),
        (given(text="none"), "has no instruction; set the benchmark's instruction="),
        (given(text="reward"), r"the reward is array\(\[1.\]\), expected one number"),
        (given()[:1], "no scripted expert .*expert=module:name"),
    ],
)
def test_what_cannot_be_recorded_is_refused(
    tmp_path: Path, options: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gym_benchmark, "MAX_STEPS", 5)
    errors = BadSample, ConfigError, DataError, EnvironmentFailed
    with pytest.raises(errors, match=message):
        record("gym", tmp_path / "data", 1, overrides=options)


def test_a_state_of_an_unknown_name_is_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record("gym", tmp_path / "data", 1, overrides=given(state="joints"))
    assert "'state=[NAME,NAME]', choices: joints" in capsys.readouterr().err
    notes.note.cache_clear()
    record("gym", tmp_path / "two", 1, overrides=[*given(state="joints"), "state=[joints]"])
    assert "choices: joints" not in capsys.readouterr().err


def test_images_of_different_sizes_are_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record("gym", tmp_path / "data", 1, overrides=given(side=30))
    text = capsys.readouterr().err
    assert "(front 20 x 20, side 30 x 20)" in text and "data.window.cameras=[front]" in text


def test_modules_of_the_current_folder_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_own_line.py").write_text("value = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])  # as for the command ``vla``
    assert imported("my_own_line:value", "benchmark.expert") == 3
    assert sys.path[-1] == str(tmp_path)
    with pytest.raises(ConfigError, match="cannot import the module my_own_plane"):
        imported("my_own_plane:value", "benchmark.expert")
    sys.modules.pop("my_own_line")


def test_the_commands_take_an_environment_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_line.py").write_text(
        "import gymnasium, numpy\n"
        f"from {__name__} import Line\n"
        "def expert(env, observation):\n"
        "    return numpy.ones(1)\n"
        "gymnasium.register('Own-v0', Line)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    monkeypatch.setattr(sys, "argv", [])
    own, data = ("own_line:Own-v0", "expert=own_line:expert"), tmp_path / "data"
    assert call("record", own[0], data, own[1], "--episodes", "2", "--workers", "0") == 0
    assert call("bench-check", *own, "--data", data) == 0
    assert call("eval", "expert", "--env", *own, "--episodes", "1") == 0
    sys.modules.pop("own_line")
    del gym.registry["Own-v0"]
