"""Names from outside in packed data: any key and camera, read by WebDataset and by this package."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import webdataset as wds
from memory_data import MemorySource, make_episode

from vla.data.pack import pack
from vla.data.packed import iter_samples
from vla.data.samples import camera_files, read_frame, read_json
from vla.errors import BadSample

KEYS = [
    "a.b/c d",
    "../../etc/passwd",
    "a.b/c d",  # twice
    "",
    ".",
    "Öffnen 抓取 🤖",
    "x" * 400,
    "line\nbreak\ttab",
    "CASE",
    "case",
    "bytes \udcff",  # a file name that is not UTF-8
    "/absolute",
]
CAMERAS = ["observation.images/front", "Top", "top", "Über 1", "top-1", "", "x" * 300, "json"]


def by_webdataset(shard: Path) -> list[dict[str, Any]]:
    """The samples that WebDataset's own reader finds in a shard."""
    with shard.open("rb") as file:
        members = wds.tariterators.tar_file_iterator(file)
        return list(wds.tariterators.group_by_keys(m | {"__url__": "x"} for m in members))


def test_keys_and_cameras_come_back_as_they_were(tmp_path: Path) -> None:
    episodes = [make_episode(i) for i in range(len(KEYS))]
    for episode, key in zip(episodes, KEYS, strict=True):
        episode.key = key
        frames = episode.images.pop("top")
        episode.images = {c: frames[n % 5 :] + frames[: n % 5] for n, c in enumerate(CAMERAS)}
    manifest = pack(MemorySource(episodes), tmp_path, shard_size=5, progress=False)
    assert sorted(manifest.cameras) == sorted(CAMERAS)
    found = list(iter_samples(tmp_path))
    assert [s["__key__"] for s in found] == KEYS
    others = [s for shard in manifest.shards for s in by_webdataset(tmp_path / shard.name)]
    assert len({s["__key__"] for s in others}) == len(others) == len(KEYS)
    for sample, other, episode in zip(found, others, episodes, strict=True):
        meta = read_json(sample)
        assert meta["key"] == episode.key and json.loads(other["json"]) == meta
        assert {n: bytes(v) for n, v in sample.items() if n != "__key__"} == {
            n: v for n, v in other.items() if not n.startswith("__")
        }
        for camera, frames in episode.images.items():
            for step, frame in enumerate(frames):
                assert read_frame(sample, meta, camera, step) == frame


def test_an_unknown_camera_is_named_with_the_choices(tmp_path: Path) -> None:
    pack(MemorySource([make_episode()]), tmp_path, progress=False)
    sample = next(iter_samples(tmp_path))
    with pytest.raises(BadSample, match="unknown camera 'wrist'; this data has top"):
        read_frame(sample, read_json(sample), "wrist", 0)


def test_names_of_camera_files_are_plain_and_unique() -> None:
    names = camera_files([*CAMERAS, "a.b", "a_b", "A.B", "_a"])
    assert len(set(names.values())) == len(names)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) for name in names.values())
    assert camera_files(["top", "wrist_2"]) == {"top": "top", "wrist_2": "wrist_2"}
