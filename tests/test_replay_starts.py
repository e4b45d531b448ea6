"""Task and seed of replayed episodes: chosen by the user, or those of the recording."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from vla.benchmarks.recording import BenchmarkSource
from vla.data.pack import pack
from vla.errors import DataError
from vla.evaluation.replay import replay, run_replay
from vla.evaluation.replay_starts import Starts, read_starts
from vla.evaluation.rollout import open_benchmark

CONFIG: dict[str, Any] = {
    "name": "gym",
    "id": "Dial-v0",
    "expert": f"{__name__}:turn",
    "tasks": {
        "low": {"instruction": "turn low"},
        "high": {"instruction": "turn high", "options": {"offset": 100}},
    },
}


class Dial(gym.Env[Any, Any]):
    """One step; the state is the seed and the offset of the task."""

    metadata = {"render_modes": [], "render_fps": 4}
    action_space = gym.spaces.Discrete(3)
    observation_space = gym.spaces.Dict({"camera": gym.spaces.Box(0, 255, (16, 16, 3), np.uint8)})

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.start = np.array([seed, self.offset], np.float32)
        return self._observation(), {}

    def _observation(self) -> Any:
        return {"camera": np.zeros((16, 16, 3), np.uint8), "state": self.start}

    def step(self, action: int) -> Any:
        assert isinstance(action, int)
        return self._observation(), 1.0, True, False, {"success": action == 2}


def turn() -> Any:
    return lambda env, observation: 2


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    gym.register("Dial-v0", Dial)
    pack(BenchmarkSource(CONFIG, 4), tmp_path / "data", 4, 0.0, False)
    yield tmp_path / "data"
    del gym.registry["Dial-v0"]


def starts(data: Path, chosen: Starts | None = None) -> list[tuple[str, int, float | None]]:
    """Task, seed and difference to the recorded state of every replayed episode."""
    results, differences, _ = replay(data, {}, 4, starts=chosen)
    assert all(r.success for r in results)
    return [(r.task, r.seed, d) for r, d in zip(results, differences, strict=True)]


def test_task_and_seed_are_those_of_the_recording_or_of_the_user(data: Path) -> None:
    assert starts(data) == [("low", 0, 0), ("high", 0, 0), ("low", 1, 0), ("high", 1, 0)]
    assert starts(data, Starts(task="low"))[1] == ("low", 0, 100)
    assert [s for _, s, _ in starts(data, Starts(seed=7))] == [7, 8, 9, 10]
    rows = {"0000001": {"task": "low", "seed": "5"}, "0000002": {"task": "", "seed": "6"}}
    assert starts(data, Starts(rows=rows))[1:3] == [("low", 5, 100), ("low", 6, 5)]


def test_a_recording_without_task_and_seed_has_the_task_of_its_instruction(data: Path) -> None:
    benchmark = open_benchmark(CONFIG)
    meta: dict[str, Any] = {"key": "a", "info": {}}
    task, seed = Starts().of(benchmark, 3, meta, "turn high")
    assert (task.id, seed) == ("high", 3)
    assert Starts().of(benchmark, 3, meta, "turn it off")[0].id == "low"
    with pytest.raises(DataError, match=r"no task 'hihg'; did you mean 'high'"):
        Starts(task="hihg").of(benchmark, 0, meta, "")


def test_a_file_of_starts_is_read_and_checked(data: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "starts.csv", tmp_path / "out"
    file.write_text("key,task,seed\n0000000,high,3\n")
    run_replay(data, {}, 1, out, starts=file)
    (episode,) = json.loads((out / "results.json").read_text())["episodes"]
    assert (episode["task"], episode["seed"]) == ("high", 3)
    for text, message in (
        ("key,sed\n0000000,3\n", "line 2: expected the columns key, task, seed"),
        ("key,seed\n000000,3\n", "line 2: no episode '000000'; did you mean"),
        ("key,seed\n0000000,x\n", "line 2: expected a whole number as seed, got 'x'"),
    ):
        file.write_text(text)
        with pytest.raises(DataError, match=message):
            read_starts(file, ["0000000"])
