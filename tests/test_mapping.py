"""Mappings: their options, and errors for wrong names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY
from robot_files import TASKS, write_folder

from vla.data.mapping import Mapping
from vla.data.robot import RobotSource
from vla.data.rotations import RotationConfig, convert_rotation
from vla.errors import DataError

REAL = REPOSITORY.parent / "shared" / "realdata"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is not here")


def test_mapping_options_change_actions_state_and_images(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    rules = Mapping(
        size=32,
        binary={"grip": 0.5},
        invert=["grip"],
        accumulate=["y"],
        rate_hz=5,
        instruction="{task}, slowly",
        plan="subtask",
        units=["m", "m", "1"],
    )
    source = RobotSource(str(root), rules)
    episode = source[1]
    assert (
        len(episode.actions) == 4
        and episode.fps == 5
        and episode.plans == ["step 0", "step 2", "step 4", "step 6"]
    )
    assert np.allclose(episode.actions[:, 1], [0.1, 0.5, 0.9, 1.3]) and set(
        episode.actions[:, 2]
    ) == {1.0}
    assert episode.instruction == f"{TASKS[1]}, slowly"
    assert (
        source.action_space is not None
        and source.action_space.binary == ("grip",)
        and source.action_space.units == ("m", "m", "1")
    )
    delta = RobotSource(str(root), Mapping(size=32, action=["action[0:2]"], delta={"x": "x"}))[0]
    assert delta.actions.shape[1] == 2 and np.allclose(delta.actions[:, 0], 0.0)


def test_the_dimensions_of_the_state_can_be_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    rules = Mapping(size=32, state=["state[0:2]"], state_names=["east", "north"])
    source = RobotSource(str(root), rules)
    assert source.state_names == ("east", "north")
    assert source.describe()["mapping"]["state_names"] == ["east", "north"]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            Mapping(state=["state[0:2]"], state_names=["east"]),
            r"mapping\.state_names: 1 names for 2 state dims",
        ),
        (
            Mapping(state=["state[0:2]"], state_names=["east", "east"]),
            r"mapping\.state_names: two names are equal: east, east",
        ),
        (
            Mapping(action=["acton"]),
            r"mapping\.action: no field 'acton'; its number fields are action, state",
        ),
        (Mapping(action=["action[0:9]"]), r"action has dims 0 to 3"),
        (Mapping(binary={"gripper": 0.5}), r"mapping\.binary: no 'gripper'; choices: x, y, grip"),
        (Mapping(cameras={"a": "front"}), r"mapping\.cameras: no 'front'; choices: top"),
        (Mapping(rate_hz=50), r"rate_hz=50: the recording has only 10\.0 rows a second"),
        (Mapping(names=["a"]), r"1 names for 3 action dims"),
        (Mapping(plan="nothing"), r"mapping\.plan: no 'nothing'; choices: subtask"),
        (
            Mapping(absolute=["x"], delta={"x": "x"}),
            r"mapping\.absolute: x also in relative, delta",
        ),
        (Mapping(relative=["z"]), r"mapping\.relative: no 'z'; choices: x, y, grip"),
    ],
)
def test_wrong_mappings_are_refused_with_the_choices(
    rules: Mapping, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        RobotSource(str(write_folder(tmp_path / "d")), rules)


def test_conventions_of_the_actions_are_recorded(tmp_path: Path) -> None:
    root = str(write_folder(tmp_path / "d"))
    rules = Mapping(accumulate=["y"], relative=["x"], absolute=["grip"], rotation="axis_angle")
    space = RobotSource(root, rules).action_space
    assert (space.relative, space.absolute, space.rotation) == (("x", "y"), ("grip",), "axis_angle")
    assert RobotSource(root).action_space.rotation == ""


@pytest.mark.parametrize(
    "kind", ["quaternion_xyzw", "quaternion_wxyz", "euler_xyz", "axis_angle", "rotation_6d"]
)
def test_rotation_conversions_are_invertible(kind: Any) -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 3)) * 0.7
    there = convert_rotation(vectors, RotationConfig("a", "axis_angle", kind))
    assert np.allclose(
        convert_rotation(there, RotationConfig("a", kind, "axis_angle")), vectors, atol=1e-9
    )


def test_a_missing_rate_and_a_missing_instruction_are_one_message(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d", table="npz")
    (root / "meta.json").unlink()
    rate = r"does not record the rows per second; set them with source\.mapping\.fps=N"
    with pytest.raises(DataError, match=f"{rate}$"):
        RobotSource(str(root))
    for file in root.rglob("instruction.txt"):
        file.unlink()
    both = rf"{rate}; it has no instruction either: .*source\.mapping\.instruction='\.\.\.'"
    with pytest.raises(DataError, match=both):
        RobotSource(str(root))
    with pytest.raises(DataError, match=f"{rate}$"):
        RobotSource(str(root), Mapping(instruction="push"))
