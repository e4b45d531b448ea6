"""What an export to LeRobot 3.0 keeps: row labels, plans, split, keys, names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_data import MemorySource, make_episode

from vla.data.export_lerobot import to_lerobot
from vla.data.mapping import Mapping
from vla.data.pack import pack
from vla.data.packed import open_packed
from vla.data.robot import RobotSource
from vla.types import Episode


def labelled(index: int, instructions: list[str], plans: list[str]) -> Episode:
    episode = make_episode(index, 5)
    episode.key, episode.plans, episode.images = f"demo/{index}.a", plans, {}
    episode.instructions = instructions
    episode.instruction = next((t for t in instructions if t), episode.instruction)
    return episode


class Named(MemorySource):
    state_names = ("pan", "tilt")


def exported(episodes: list[Episode], folder: Path) -> Path:
    pack(Named(episodes), folder / "p", val_fraction=0.0, progress=False)
    return to_lerobot(folder / "p", folder / "out", progress=False)


def test_labels_split_keys_and_names_survive(tmp_path: Path) -> None:
    changing = ["open", "open", "", "close", "close"]
    plans = ["reach", "reach", "pull", "", "push"]
    episodes = [labelled(i, changing if i % 2 else [], plans if i == 3 else []) for i in range(5)]
    for i in (1, 3):
        episodes[i].split = "val"
    out = exported(episodes, tmp_path)
    packed = open_packed(tmp_path / "p")
    order = [r.key for split in ("train", "val") for r in packed.rows(split)]
    info = json.loads((out / "meta/info.json").read_text())
    assert info["splits"] == {"train": "0:3", "val": "3:5"} and info["video_path"] is None
    assert info["features"]["observation.state"]["names"] == ["pan", "tilt"]
    table = parquet.read_table(out / "meta/episodes/chunk-000/file-000.parquet")
    assert table["source_key"].to_pylist() == order
    mapping = Mapping(plan="subtask", cameras={})
    source = RobotSource(str(out), mapping)
    for number, key in enumerate(order):
        wanted = next(e for e in episodes if e.key == key)
        found = source[number]
        assert found.instructions == wanted.instructions
        assert found.instruction == wanted.instruction
        assert found.plans == (wanted.plans or [""] * 5)
        assert found.split == ("train" if number < 3 else "val")
        assert np.array_equal(found.actions, wanted.actions)
    pack(source, tmp_path / "again", progress=False)
    assert {len(open_packed(tmp_path / "again").rows(s)) for s in ("train", "val")} == {3, 2}


def test_data_without_plans_has_no_subtasks(tmp_path: Path) -> None:
    out = exported([make_episode(i) for i in range(2)], tmp_path)
    assert not (out / "meta/subtasks.parquet").exists()
    info = json.loads((out / "meta/info.json").read_text())
    assert "subtask_index" not in info["features"] and info["splits"] == {"train": "0:2"}
    assert info["video_path"] is not None


@settings(deadline=None, max_examples=10)
@given(st.lists(st.sampled_from(["pick", "place it", "", "ü"]), min_size=5, max_size=5))
def test_any_labels_survive(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    if any(texts):
        varied = texts if len(set(texts)) > 1 else []
        episode = labelled(0, varied, [])
        episode.instruction = next(t for t in texts if t)
        folder = tmp_path_factory.mktemp("export")
        found = RobotSource(str(exported([episode], folder)), Mapping(cameras={}))[0]
        assert found.instructions == varied and found.instruction == episode.instruction
