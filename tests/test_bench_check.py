"""``vla bench-check``: checks of every benchmark, its own, and those of a policy and of data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from command_line import call, here  # noqa: F401
from conftest import REPOSITORY

from vla.benchmarks.base import Benchmark, Check, Expert, Task
from vla.benchmarks.check_run import _orientation
from vla.benchmarks.checks import checks_of, compare_actions, compare_inputs
from vla.types import ActionSpace

SPACE = ActionSpace(
    *(("x", "grip"), ("cm", "closed"), (-1.0, -1.0), (1.0, 1.0)),
    rate_hz=10.0,
    relative=("x",),
    absolute=("grip",),
)


class Line(Benchmark):
    """A point that moves; ``defect`` names what is wrong."""

    name, action_space, max_steps = "line", SPACE, 4

    def __init__(self, defect: str = "") -> None:
        self.defect = defect

    def tasks(self) -> list[Task]:
        return [Task("right", "go right")]

    def make_env(self, task: Task) -> gym.Env[Any, Any]:
        return LineEnv(self.defect)

    def expert(self, task: Task) -> Expert:
        value = -1.0 if self.defect == "expert" else 1.0
        return lambda env, observation: np.array([value, 0], np.float32)

    def checks(self, task: Task) -> Iterator[Check]:
        yield Check("own", "a", "b", self.defect != "own")


class LineEnv(gym.Env[Any, Any]):
    def __init__(self, defect: str) -> None:
        self.defect, self.draws = defect, np.random.default_rng()

    def observe(self) -> dict[str, Any]:
        image = np.zeros((8, 8, 3), np.uint8)
        image[:4] = 0 if self.defect == "images" else 200
        state = np.array([self.x], np.float32)
        return {"images": {"top": image}, "state": state, "instruction": "go right"}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        source = self.draws if self.defect == "seed" else np.random.default_rng(seed)
        self.x, self.steps = float(source.uniform()), 0
        return self.observe(), {}

    def step(self, action: np.ndarray) -> Any:
        if self.defect == "action bounds" and action[0] == 1:
            raise ValueError("too far")
        self.x, self.steps = self.x + float(action[0]), self.steps + 1
        done = self.x > 3
        return self.observe(), 0.0, done, self.steps == 4, {"success": done}


@pytest.mark.parametrize("defect", ["", "seed", "images", "action bounds", "own"])
def test_a_defect_fails_its_check_alone(defect: str) -> None:
    benchmark = Line(defect)
    checks = list(checks_of(benchmark, benchmark.tasks()[0], 0))
    assert [c.name for c in checks] == ["seed", "images", "action bounds", "own"]
    assert [c.name for c in checks if not c.passed] == ([defect] if defect else [])


@pytest.mark.parametrize(("defect", "passed"), [("", True), ("expert", False)])
def test_the_expert_reaches_success(defect: str, passed: bool) -> None:
    benchmark = Line(defect)
    found = {c.name: c for c in checks_of(benchmark, benchmark.tasks()[0], 2)}
    assert found["success"].passed is passed


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({}, []),
        ({"names": ("grip", "x")}, ["action names", "relative", "absolute"]),
        ({"units": ("m", "closed")}, ["action units"]),
        ({"units": ("recorded", "recorded")}, []),
        ({"low": (-30.0, -1.0)}, ["action bounds"]),
        ({"low": (-0.5, 0.0)}, []),
        ({"rate_hz": 30.0}, ["control rate, Hz"]),
        ({"relative": (), "absolute": ()}, []),  # not stated
        ({"relative": (), "absolute": ("x", "grip")}, ["absolute"]),
    ],
)
def test_actions_of_another_convention_fail(change: dict[str, Any], failed: list[str]) -> None:
    swap = {"relative": ("grip",), "absolute": ("x",)} if "names" in change else {}
    ours = replace(SPACE, **(change | swap))
    checks = compare_actions(ours, SPACE, "policy")
    assert [c.name.removeprefix("policy: ") for c in checks if not c.passed] == failed


def test_inputs_that_the_benchmark_does_not_give_fail() -> None:
    env = LineEnv("")
    for cameras, size, passed in (
        (("top",), 1, [True, True]),
        ((), 0, [True, True]),
        (("wrist",), 8, [False, False]),
    ):
        assert [c.passed for c in compare_inputs(env, cameras, size, "data")] == passed


@pytest.mark.parametrize(
    ("axes", "way"),
    [
        ((), "as the benchmark's"),
        (1, "mirrored"),
        (0, "upside down"),
        ((0, 1), "rotated by 180 degrees"),
    ],
)
def test_images_of_another_orientation_fail(axes: Any, way: str) -> None:
    ours = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    check = _orientation(ours, np.flip(ours, axes).astype(float), "top")
    assert check.measured.startswith(way) and check.passed is (axes == ())


def test_images_that_are_like_no_flip_are_not_clear() -> None:
    ours, theirs = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), np.uint8)
    check = _orientation(ours, theirs.astype(float), "top")
    assert check.passed and check.measured.endswith("not clear")


def test_an_unknown_benchmark_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("bench-check", "libero/spatiel") == 2
    assert "did you mean 'libero/spatial'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_the_command_prints_a_table(
    tiny_data: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "160")  # long cells have one line
    policy = REPOSITORY / "experiments" / "tabletop_seen" / "policy"
    given = ("--data", tiny_data["robot"], "--policy", policy)
    code = call("bench-check", "tabletop", *given, "--attempts", "1")
    printed = capsys.readouterr().out
    assert code == 0 and "FAIL" not in printed, printed
    for check in ("success", "data: flip of top", "data: state", "policy: action bounds"):
        assert check in printed
    assert "tabletop has no checks of its own" in printed
