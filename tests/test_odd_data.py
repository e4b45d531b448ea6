"""Unusual data: wrong names, missing numbers, images of several sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot_files import write_lerobot2
from PIL import Image
from robot_files import LENGTHS, write_folder

from vla.data.images import decode_image
from vla.data.mapping import Mapping
from vla.data.pack import pack_from
from vla.data.robot import RobotSource
from vla.errors import BadSample, DataError


def rename(root: Path, names: Any) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    info["features"]["action"]["names"] = names
    path.write_text(json.dumps(info))


@pytest.mark.parametrize(
    "names", [["x", "y"], {"motors": ["x", "y", "z", "grip"]}, ["x", "x", "grip"]]
)
def test_wrong_numbers_of_names_give_a_clear_error(names: Any, tmp_path: Path) -> None:
    rename(write_lerobot2(tmp_path / "d"), names)
    with pytest.raises(
        DataError,
        match=r"meta/info\.json: features\.action\.names: \d names for 3 numbers \(x, "
        r".*give every number its own name",
    ):
        RobotSource(str(tmp_path / "d"), Mapping(size=32))


@pytest.mark.parametrize("names", [None, ["actions"]])
def test_one_name_for_all_dims_or_none_is_accepted(names: Any, tmp_path: Path) -> None:
    rename(write_lerobot2(tmp_path / "d"), names)
    source = RobotSource(str(tmp_path / "d"), Mapping(size=32))
    assert source.action_space is not None and source.action_space.names == (
        "action_0",
        "action_1",
        "action_2",
    )


def test_episodes_with_missing_numbers_are_refused_or_skipped(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    table = root / "épisode 1/steps.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    lines[3] = "nan" + lines[3][lines[3].index(",") :]
    table.write_text("\n".join(lines), encoding="utf-8")
    settings = ["source.mapping.size=32", "shard_size=1"]
    with pytest.raises(
        (DataError, BadSample), match="actions has a NaN or infinite value at step 2"
    ):
        pack_from(root, tmp_path / "a", settings)
    assert (
        pack_from(root, tmp_path / "b", settings, skip_bad=True, max_bad=0.5).samples
        == len(LENGTHS) - 1
    )


def test_images_of_several_sizes_are_resized(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    Image.new("RGB", (64, 48), (200, 0, 0)).save(root / "épisode 0/top/0001.png")
    episode = RobotSource(str(root), Mapping(size=32))[0]
    assert {decode_image(frame, "").shape for frame in episode.images["top"]} == {(32, 32, 3)}


def test_ppm_images_are_lossless(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    recorded = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(recorded).save(root / "épisode 0/top/0001.png")
    kept = {
        kind: RobotSource(str(root), Mapping(size=32, image_format=kind))[0].images["top"][1]
        for kind in ("jpeg", "ppm")
    }
    assert np.array_equal(decode_image(kept["ppm"], ""), recorded)
    assert not np.array_equal(decode_image(kept["jpeg"], ""), recorded)
    with pytest.raises(BadSample, match=r"sample 7: unreadable image .*vla data verify"):
        decode_image(kept["ppm"][:-1], "sample 7")
    with pytest.raises(BadSample, match="larger than"):
        decode_image(b"P6\n5000 9\n255\n", "sample 7")
