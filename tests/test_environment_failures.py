"""Numbers that are not finite and exceptions of environments and experts end in one clear line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from vla.benchmarks.check_run import run_checks
from vla.benchmarks.recording import record
from vla.config import check
from vla.errors import BadSample, ConfigError, DataError, EnvironmentFailed
from vla.evaluation.run import EXPERT, run_eval
from vla.training.config import TrainConfig

IMAGE = np.arange(1200, dtype=np.uint8).reshape(20, 20, 3)
PLACE = "gym: task 'Faulty-v0', seed {seed}, step 1: "


class Faulty(gym.Env[Any, Any]):
    """Two steps; ``fault`` names what is wrong in the second one."""

    metadata = {"render_modes": []}
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    observation_space = gym.spaces.Dict({"camera": gym.spaces.Box(0, 255, IMAGE.shape, np.uint8)})

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.steps = 0
        return {"camera": IMAGE, "state": np.zeros(3, np.float32)}, {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        fault = self.fault if self.steps == 2 else ""
        if fault == "raises":
            raise RuntimeError("joint 7 is stuck")
        number = {name: np.nan if fault == name else 1.0 for name in ("success", "reward", "state")}
        state = np.array([0, number["state"], 0], np.float32)
        info = {"success": number["success"]}
        return {"camera": IMAGE, "state": state}, number["reward"], self.steps == 2, False, info


def right_expert() -> Any:
    return lambda env, observation: np.zeros(2, np.float32)


def nan_expert() -> Any:
    return lambda env, observation: np.array([0, np.nan if env.unwrapped.steps else 0])


def raising_expert() -> Any:
    def act(env: Any, observation: Any) -> np.ndarray:
        if env.unwrapped.steps:
            raise KeyError("plan")
        return np.zeros(2, np.float32)

    return act


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    gym.register("Faulty-v0", Faulty)
    yield
    del gym.registry["Faulty-v0"]


def options(fault: str = "", expert: str = "right") -> dict[str, Any]:
    path = f"{__name__}:{expert}_expert"
    made = {"fault": fault}
    return {"id": "Faulty-v0", "instruction": "go", "expert": path, "options": made}


def evaluate(config: dict[str, Any], out: Path | None = None, **more: Any) -> None:
    given = {"name": "gym"} | config
    run_eval(Path(EXPERT), given, [], None, 2, 1_000_003, out, 1, [], workers=0, **more)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (options("success"), r"info\['success'\] is nan, expected a"),
        (options("reward"), "the reward is nan, expected a finite number"),
        (options("reward") | {"success_return": 1.0}, "the reward is nan, expected a finite"),
        (options("state"), "the state must be finite numbers; it has NaN"),
        (options("raises"), "the environment raised RuntimeError: joint 7 is stuck"),
        (options(expert="nan"), "the expert's action is .*nan.*, expected 2 finite numbers"),
        (options(expert="raising"), "the expert raised KeyError: 'plan'"),
    ],
)
def test_failures_name_task_seed_and_step(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(EnvironmentFailed, match=PLACE.format(seed=1_000_003) + message):
        evaluate(config, tmp_path / "eval")
    assert not (tmp_path / "eval" / "results.json").exists()
    given = [f"{key}={json.dumps(value)}" for key, value in config.items()]
    with pytest.raises(BadSample, match=PLACE.format(seed=0) + message):
        record("gym", tmp_path / "data", 2, overrides=given)
    with pytest.raises(EnvironmentFailed, match="gym: task 'Faulty-v0', seed .*" + message):
        run_checks("gym", given, None, None, None, 1)


def test_an_earlier_evaluation_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(options(), tmp_path)
    first = (tmp_path / "results.json").read_bytes()
    evaluate(options() | {"instruction": "stop"}, tmp_path)
    assert (tmp_path / "previous-1" / "results.json").read_bytes() == first
    assert (tmp_path / "previous-1" / "tasks.csv").is_file()
    assert b"stop" in (tmp_path / "results.json").read_bytes()
    assert "are in previous-1 now" in capsys.readouterr().err


def test_a_comparison_with_other_episodes_is_refused_first(tmp_path: Path) -> None:
    evaluate(options(), tmp_path / "one")
    results = tmp_path / "one" / "results.json"
    rows = json.loads(results.read_text())
    rows["episodes"][0]["seed"] += 5
    results.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"results\.json: other episodes than this evaluation has"):
        evaluate(options("raises"), compare_to=results)  # the environment would raise


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"eval": {"episodes": 1, "workers": -1}}, "workers: expected at least 0, got -1"),
        ({"steps": 4, "val_every": 4, "eval": {"episodes": 1, "every": 8}}, "at most steps"),
    ],
)
def test_options_of_the_evaluation_are_checked(train: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(train, TrainConfig, "train")
