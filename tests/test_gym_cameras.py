"""Environments with other names, orders and types than the policy's: converted, or one line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from fake_policies import ACTIONS, RecordingPolicy

from vla.errors import ConfigError, DataError, EnvironmentFailed
from vla.evaluation.environment import check_actions
from vla.evaluation.rollout import evaluate, open_benchmark
from vla.policies.bound import RenamedCameras
from vla.types import ActionSpace
from vla.utils.resize import fit_image

FRONT = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
WRIST = 255 - FRONT
FLOATS = gym.spaces.Box(0, 255, (12, 20, 3), np.float32)


class OddEnv(gym.Env[Any, Any]):
    """Its observation is ``fields``; ``crash`` is raised at the second step."""

    def __init__(
        self,
        fields: Any = None,
        crash: Exception | None = None,
        space: Any = None,
        actions: Any = None,
    ) -> None:
        self.fields, self.crash = fields, crash
        self.observation_space = space
        self.action_space = actions or gym.spaces.Box(-0.5, 0.5, (3,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.steps = 0
        return self.fields, {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        assert self.action_space.contains(action)
        if self.crash is not None and self.steps == 2:
            raise self.crash
        return self.fields, 0.0, self.steps == 2, False, {"success": True}


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    gym.register("Odd-v0", OddEnv)
    yield
    del gym.registry["Odd-v0"]


def run(policy: Any, fields: Any, more: Any = None, **options: Any) -> Any:
    config = {"name": "gym", "id": "Odd-v0", "instruction": "go", **options}
    config["options"] = {"fields": fields, **(more or {})}
    benchmark = open_benchmark(config, policy.spec.cameras)
    return evaluate(policy, benchmark, benchmark.tasks(), 1, progress=False)


def seen(policy: RecordingPolicy) -> np.ndarray:
    """Images of the first call, (V, H, W, 3)."""
    return policy.calls[0].images[0, :, 0].permute(0, 2, 3, 1).numpy()


def two_cameras(**spec: Any) -> RecordingPolicy:
    return RecordingPolicy(cameras=("front", "wrist"), image_size=(12, 20), **spec)


@pytest.mark.parametrize(
    "fields",
    [
        {"front": FRONT, "wrist": WRIST},
        {"wrist": WRIST, "front": FRONT},
        {"images": {"wrist": WRIST, "front": FRONT}},
        {"pixels": {"wrist_image": WRIST, "top": WRIST, "front_rgb": FRONT}, "agent_pos": [0.0]},
        {"wrist": WRIST.transpose(2, 0, 1), "front": (FRONT / 255).astype(np.float32)},
        {"wrist": WRIST[None], "front": np.concatenate([FRONT, FRONT[..., :1]], -1)},
    ],
    ids=["same order", "other order", "nested", "decorated", "other types", "batch and alpha"],
)
def test_cameras_are_matched_by_name(fields: Any) -> None:
    policy = two_cameras()
    run(policy, fields)
    assert np.array_equal(seen(policy), [FRONT, WRIST])


def test_names_can_be_mapped_and_two_sides_are_listed_otherwise() -> None:
    policy, fields = two_cameras(), {"a": WRIST, "b": FRONT}
    run(policy, fields, cameras={"front": "b", "wrist": "a"})
    assert np.array_equal(seen(policy), [FRONT, WRIST])
    message = (
        "Odd-v0: no image for camera 'front'; the policy has front, wrist, the environment has "
        "a, b; name it with cameras.front=NAME"
    )
    with pytest.raises(ConfigError, match=message):
        run(policy, fields)
    with pytest.raises(ConfigError, match=r"benchmark.cameras.frnt: the policy has no such"):
        run(policy, fields, cameras={"frnt": "b"})
    with pytest.raises(ConfigError, match=r"no image in its observation \(state\)"):
        run(policy, {"state": np.zeros(3)})


def test_cameras_of_a_policy_get_other_names_as_for_the_server() -> None:
    policy, fields = two_cameras(), {"a": WRIST, "b": FRONT, "c": WRIST}
    renamed = RenamedCameras(policy, {"front": "b", "wrist": "a"})
    assert renamed.spec.cameras == ("b", "a") and renamed.robot == policy.robot
    run(renamed, fields)
    assert np.array_equal(seen(policy), [FRONT, WRIST])
    with pytest.raises(ConfigError, match=r"--camera frnt=.*no such camera; choices: front, wrist"):
        RenamedCameras(policy, {"frnt": "b"})


def test_images_of_another_size_are_fitted_as_for_training_and_dark_floats_stay_dark() -> None:
    policy = RecordingPolicy(cameras=("front",), image_size=(10, 10), image_fit="pad")
    run(policy, {"front": FRONT})
    assert np.array_equal(seen(policy)[0], fit_image(FRONT, (10, 10), "pad"))
    dark = np.ones((12, 20, 3), np.float32)
    for space, value in ((None, 255), (gym.spaces.Dict({"front": FLOATS}), 1)):
        policy = RecordingPolicy(cameras=("front",), image_size=(12, 20))
        run(policy, {"front": dark}, {"space": space})
        assert (seen(policy) == value).all()


def test_the_state_is_joined_from_named_fields_and_its_size_is_checked() -> None:
    fields = {"front": FRONT, "joints": np.arange(2.0), "gripper": 0.5}
    policy = RecordingPolicy(cameras=("front",), image_size=(12, 20), state_dim=3)
    run(policy, fields, state=["joints", "gripper"])
    assert policy.calls[0].state is not None
    assert policy.calls[0].state.tolist() == [[[0.0, 1.0, 0.5]]]
    with pytest.raises(ValueError, match="needs a state of 3 numbers; the observation has none"):
        run(policy, fields)
    with pytest.raises(ConfigError, match=r"no 'joint' for the state; Odd-v0 has .*name the field"):
        run(policy, fields, state=["joint"])


def test_a_crash_inside_the_environment_is_one_line_with_seed_and_step() -> None:
    policy = RecordingPolicy(cameras=("front",), image_size=(12, 20))
    crash = {"crash": RuntimeError("solver diverged\nat link 3")}
    with pytest.raises(EnvironmentFailed) as failed:
        run(policy, {"front": FRONT}, crash)
    text = str(failed.value)
    assert "task 'Odd-v0', seed 1000003, step 1: the environment raised RuntimeError" in text
    assert "solver diverged (" in text and "test_gym_cameras.py, line" in text and "\n" not in text


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"id": "Od-v0"}, "'Od-v0': no such environment; did you mean 'Odd-v0'"),
        ({"id": "no_such_module:Odd-v0"}, "cannot import the module no_such_module; install"),
        ({"id": "Odd-v0", "options": {"feilds": {}}}, "cannot be made with options .*'feilds'"),
        ({"id": "Odd-v0", "options": {"actions": gym.spaces.Text(4)}}, "supported are Box, Discr"),
        ({"id": "Odd-v0", "wrappers": ["Wrapper"]}, r"wrappers\[0\]: expected module:name"),
        ({"id": "Odd-v0", "wrappers": ["gymnasium:Nothing"]}, "gymnasium has no 'Nothing'"),
        (
            {"id": "Odd-v0", "wrappers": ["gymnasium:Wrapper", "json:loads"]},
            r"\[1\]: json:loads can",
        ),
        ({"id": "Odd-v0", "scores": {"best": "biggest reward"}}, "benchmark.scores.best: expected"),
        ({"id": "Odd-v0", "instrution": "go"}, "did you mean 'instruction'"),
    ],
)
def test_invalid_environments_are_one_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_benchmark({"name": "gym", **config})


def test_actions_that_do_not_fit_are_named(capsys: Any) -> None:
    def space(names: Any, low: float, high: float) -> ActionSpace:
        return ActionSpace(tuple(names), ("m",) * 3, (low,) * 3, (high,) * 3)

    check_actions(space("xyz", -1, 1), space("abc", -1, 1), "sim")
    assert not capsys.readouterr().err
    check_actions(space("xyz", -2, 1), space("abc", -1, 1), "sim")
    assert "x: -2 to 1, sim takes -1 to 1" in capsys.readouterr().err
    endless, sim = space("xyz", -np.inf, np.inf), space("abc", -1, 1)
    check_actions(endless, sim, "sim", recorded={"q01": [-1, 0, 0], "q99": [0, 1, 1]})
    check_actions(endless, space("abc", -np.inf, np.inf), "sim")
    assert not capsys.readouterr().err
    check_actions(endless, sim, "sim", recorded={"q01": [-1, 0, 0], "q99": [0, 1.2, 1]})
    printed = capsys.readouterr().err
    assert "y: 0 to 1.2, sim takes -1 to 1; clip_actions=false" in printed and "x:" not in printed
    for ours, theirs, message in (
        (space("xyz", -1, 1), space("zyx", -1, 1), "takes the actions in the order z, y, x"),
        (space("xyz", 100, 200), space("abc", -1, 1), "outside the bounds of sim .x: 100 to 200"),
        (ACTIONS, ActionSpace(("a",), ("",), (0.0,), (1.0,)), r"takes 1 action numbers \(a\)"),
    ):
        with pytest.raises(DataError, match=message):
            check_actions(ours, theirs, "sim")


def test_a_task_with_a_typing_error_names_the_nearest() -> None:
    benchmark = open_benchmark({"name": "gym", "id": "Odd-v0"})
    with pytest.raises(ValueError, match="no task or group 'Od-v0'; did you mean 'Odd-v0'"):
        benchmark.select(["Od-v0"])
    assert benchmark.max_steps == 1000  # the environment has no limit of its own
