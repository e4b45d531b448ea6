"""What a policy states about its interface, and the comparison with a client's declaration."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import call
from conftest import REPOSITORY

from vla.errors import ConfigError
from vla.policies.spec import RobotSpec
from vla.serve.handshake import harness_specs, interface, mismatches, text
from vla.types import ActionSpace

POLICY = str(REPOSITORY / "experiments" / "tabletop_seen" / "policy")
SPACE = ActionSpace(
    ("x", "roll", "gripper"),
    ("m", "rad", "open"),
    (-1.0, -float("inf"), 0.0),
    (1.0, float("inf"), 1.0),
    binary=("gripper",),
    rate_hz=10.0,
)
STATISTICS = {"actions": {"mean": [0.0, 0.0, 0.0]}}
SPEC = RobotSpec(SPACE, ("top", "wrist"), (48, 64), relative=(0, -1, -1), statistics=STATISTICS)
ABOUT = interface(SPEC, "arm")


def test_known_facts_are_stated_and_others_are_null() -> None:
    assert json.loads(json.dumps(ABOUT, allow_nan=False)) == ABOUT
    known = {
        "camera_sizes": {"top": [48, 64], "wrist": [48, 64]},
        "action_names": ["x", "roll", "gripper"],
        "action_units": ["m", "rad", "open"],
        "action_low": [-1.0, None, 0.0],
        "binary_actions": ["gripper"],
        "action_reference": ["absolute", None, None],
        "gripper": {"name": "gripper", "low": 0.0, "high": 1.0, "closed": 0.0},
        "rotation": None,
        "rate_hz": 10.0,
        "statistics_key": "arm",
        "image_dtype": "uint8",
        "action_dtype": "float32",
    }
    assert known.items() <= ABOUT.items()
    two = ActionSpace(("left_gripper", "right_gripper"), ("", ""), (0, 0), (1, 1))
    other = interface(RobotSpec(two, (), (0, 0)), "arm")
    assert other["gripper"] is None and other["statistics_key"] is None
    assert any(line.startswith("rotation") and line.endswith("unknown") for line in text(ABOUT))


def test_conventions_of_the_action_space_are_stated() -> None:
    space = replace(SPACE, relative=("x",), absolute=("gripper",), rotation="axis_angle")
    about = interface(RobotSpec(ActionSpace.from_dict(space.to_dict()), (), (0, 0)), "arm")
    assert about["action_reference"] == ["relative", None, "absolute"]
    assert about["rotation"] == "axis_angle"
    assert harness_specs(about)["action_spec"]["rotation"]["format"] == "axis_angle"
    assert mismatches(about, {"rotation": "euler_xyz"})[0]
    assert space == SPACE and "rotation" not in SPACE.to_dict()  # saved policies stay equal
    with pytest.raises(ValueError, match="relative and absolute"):
        replace(space, absolute=("x",))


@pytest.mark.parametrize(
    ("declared", "wrong", "unknown"),
    [
        (ABOUT, [], []),
        ({"rate_hz": 10, "rotation": None, "action_low": [-1.0, None, 0.0]}, [], []),
        ({"cameras": ["observation/wrist", "cam_top", "side"]}, [], []),
        ({"cameras": ["top"]}, ["cameras: no image for camera 'wrist'"], []),
        ({"cameras": "top"}, ["cameras: expected a list"], []),
        (
            {"camera_sizes": {"cam_wrist": [48, 48]}},
            ["camera_sizes.wrist[1]: the policy has 64"],
            [],
        ),
        ({"action_names": ["x", "gripper", "roll"]}, ["action_names[1]", "action_names[2]"], []),
        ({"action_names": ["x"]}, ["action_names: the policy has ['x', 'roll', 'gripper']"], []),
        ({"rate_hz": 5.0}, ["rate_hz: the policy has 10.0, the client declares 5.0"], []),
        ({"rate_hz": "10"}, ["rate_hz"], []),
        ({"history": True}, ["history"], []),
        ({"gripper": {"closed": 1}}, ["gripper.closed: the policy has 0.0"], []),
        ({"rotation": "axis_angle"}, [], ["rotation: the client declares 'axis_angle'"]),
        (
            {"action_reference": ["relative"] * 3},
            ["action_reference[0]"],
            ["action_reference[1]", "action_reference[2]"],
        ),
        ({"temporal_ensemble": 0.1}, ["temporal_ensemble"], []),
        ({"state_dim": 7}, ["state_dim"], []),
    ],
)
def test_differences_are_listed(declared: Any, wrong: list[str], unknown: list[str]) -> None:
    found, left_open = mismatches(ABOUT, declared)
    assert len(found) == len(wrong) and all(map(str.startswith, found, wrong)), found
    assert [line[: len(u)] for line, u in zip(left_open, unknown, strict=False)] == unknown
    assert bool(left_open) == bool(unknown)


def test_names_of_the_command_line_are_used_and_unknown_keys_are_errors() -> None:
    names = {"top": "a", "wrist": "b"}
    assert mismatches(ABOUT, {"cameras": ["a", "b"]}, names) == ([], [])
    with pytest.raises(
        ConfigError, match=r"unknown key 'action_name'; did you mean 'action_names'"
    ):
        mismatches(ABOUT, {"action_name": []})
    with pytest.raises(ConfigError, match="JSON object"):
        mismatches(ABOUT, [1])


def test_the_command_line_states_and_compares(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("info", POLICY, "--json") == 0
    about = json.loads(capsys.readouterr().out)
    assert about["gripper"]["closed"] == 1.0 and about["action_units"][1] == "m"
    assert call("info", POLICY) == 0 and "droll" in capsys.readouterr().out
    file = tmp_path / "client.json"
    for declared, code, line in (
        (about, 0, "no mismatch"),
        ({"rate_hz": 50, "rotation": "euler"}, 1, "mismatch: rate_hz: the policy has 5.0"),
        ({"rates": 1}, 2, "unknown key 'rates'"),
        ([], 2, "expected a JSON object"),
    ):
        file.write_text(json.dumps(declared))
        assert call("serve", POLICY, "--check", file) == code
        assert line in "".join(capsys.readouterr())
