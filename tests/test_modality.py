"""GR00T's ``meta/modality.json``: names of state and action parts, cameras, task texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lerobot_files import write_lerobot2
from robot_files import TASKS

from vla.data.mapping import Mapping
from vla.data.robot import RobotSource
from vla.errors import DataError


def test_parts_and_cameras_get_the_names_of_the_file(tmp_path: Path) -> None:
    root = write_lerobot2(tmp_path / "d")
    modality = {
        "state": {"arm": {"start": 0, "end": 2}, "hand": {"start": 2, "end": 3}},
        "action": {"arm": {"start": 0, "end": 2}, "hand": {"start": 2, "end": 3}},
        "video": {"ego_view": {"original_key": "observation.images.top"}},
    }
    (root / "meta/modality.json").write_text(json.dumps(modality))
    source = RobotSource(str(root), Mapping(size=32, binary={"hand": 0.5}))
    assert source.action_space is not None and source.action_space.names == (
        "arm_0",
        "arm_1",
        "hand",
    )
    assert source.state_names == ("arm_0", "arm_1", "hand")
    assert list(source[0].images) == ["ego_view", "wrist"] and source[0].instruction == TASKS[0]
    modality["action"]["hand"]["end"] = 9
    (root / "meta/modality.json").write_text(json.dumps(modality))
    with pytest.raises(DataError, match=r"modality\.json: action\.hand is 2 to 9 of 'action'"):
        RobotSource(str(root), Mapping(size=32))
