"""Damaged data sets give one clear error; bad episodes can be skipped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from formats import write_format
from lerobot_files import write_video
from robot_files import image_of, write_folder

from vla.data.mapping import Mapping
from vla.data.pack import pack_from
from vla.data.robot import RobotSource
from vla.errors import BadSample, DataError

REAL = REPOSITORY.parent / "shared" / "realdata"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is not here")


def _edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def _truncate(path: Path, size: int | None = None) -> None:
    path.write_bytes(path.read_bytes()[: size or path.stat().st_size // 2])


BROKEN: list[tuple[str, Callable[[Path], Any], str]] = [
    (
        "lerobot2",
        lambda p: _truncate(p / "data/chunk-000/episode_000000.parquet"),
        r"episode_000000\.parquet: damaged or unfinished table .*finalize",
    ),
    (
        "lerobot2",
        lambda p: write_video(
            p / "videos/chunk-000/observation.images.top/episode_000000.mp4",
            [image_of(0, 0), image_of(0, 1)],
        ),
        r"episode 0 needs a frame at 0\.200 s, the video has frames up to 0\.100 s",
    ),
    (
        "lerobot2",
        lambda p: (p / "meta/tasks.jsonl").write_text('{"task_index": 7, "task": "x"}\n'),
        r"episode 0 has task 0, which the task list lacks",
    ),
    ("lerobot2", lambda p: (p / "meta/episodes.jsonl").unlink(), r"episodes\.jsonl: missing"),
    (
        "lerobot2",
        lambda p: (p / "meta/episodes.jsonl").write_text('{"episode_index": 0\n'),
        r"episodes\.jsonl: line 1 is not JSON",
    ),
    (
        "lerobot2",
        lambda p: _edit(
            p / "meta/info.json", lambda d: d["features"]["action"].update(shape=[4], names=None)
        ),
        r"3 numbers a row, meta/info.json declares 4",
    ),
    (
        "lerobot2",
        lambda p: _edit(p / "meta/info.json", lambda d: d.update(codebase_version="v9.0")),
        r"codebase_version 'v9\.0'; this program reads",
    ),
    (
        "lerobot2",
        lambda p: _truncate(p / "videos/chunk-000/observation.images.top/episode_000000.mp4"),
        r"episode_000000\.mp4: damaged video",
    ),
    (
        "rlds",
        lambda p: _truncate(p / "toy-train.tfrecord-00000-of-00001", 99),
        r"truncated after 0 bytes; the rest of this file cannot be read",
    ),
    ("rlds", lambda p: (p / "features.json").unlink(), r"features\.json: missing"),
    (
        "rlds",
        lambda p: (p / "toy-train.tfrecord-00000-of-00001").rename(
            p / "toy-train.tfrecord-00000-of-00003"
        ),
        r"2 of 3 \.tfrecord files are missing",
    ),
    ("robomimic", lambda p: _truncate(p / "demo.hdf5"), r"not a complete HDF5 file"),
    ("folder", lambda p: (p / "épisode 0/top/0002.png").unlink(), r"4 images for 5 rows"),
    (
        "folder",
        lambda p: (p / "épisode 0/steps.csv").write_text("action.x,state.x\n1,2\n"),
        r"5 images for 1 rows",
    ),
]


@pytest.mark.parametrize(("name", "spoil", "message"), BROKEN)
def test_damaged_data_gives_a_clear_error(
    name: str, spoil: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    write_format(name, tmp_path / "d")
    spoil(tmp_path / "d")
    with pytest.raises((DataError, BadSample), match=message):
        source = RobotSource(str(tmp_path / "d"), Mapping(size=32, fps=10))
        source[0]


def test_bad_episodes_are_skipped_and_listed_up_to_a_share(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    (root / "épisode 1/top/0002.png").unlink()
    with pytest.raises(DataError, match="7 images for 8 rows"):
        pack_from(root, tmp_path / "a", ["source.mapping.size=32", "shard_size=1"])
    with pytest.raises(
        DataError,
        match=r"1 of 3 samples are bad, more than --max-bad 0\.1; first: .*7 images for 8 rows",
    ):
        pack_from(root, tmp_path / "b", ["source.mapping.size=32", "shard_size=1"], skip_bad=True)
    manifest = pack_from(
        root, tmp_path / "c", ["source.mapping.size=32", "shard_size=1"], skip_bad=True, max_bad=0.5
    )
    assert manifest.samples == 2 and manifest.quarantined == 1
    assert json.loads((tmp_path / "c/quarantine.json").read_text())[0]["index"] == 1
