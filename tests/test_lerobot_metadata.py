"""LeRobot descriptions with gaps, as converters write them, give the right episodes or one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot_files import (
    edit_feature,
    edit_info,
    edit_table,
    tables_of,
    write_lerobot2,
    write_lerobot3,
)
from robot_files import LENGTHS, TASKS, action, identify

from vla.data.images import decode_image
from vla.data.mapping import Mapping
from vla.data.robot import RobotSource
from vla.errors import BadSample, DataError


def check_episodes(root: Path, **options: Any) -> RobotSource:
    """All episodes have the right actions, frames and instructions."""
    source = RobotSource(str(root), Mapping(size=32, **options))
    for e, n in enumerate(LENGTHS):
        episode = source[e]
        assert np.allclose(episode.actions, [action(e, t) for t in range(n)], atol=1e-6)
        assert episode.instruction == TASKS[e % 2] and not episode.instructions
        frames = [identify(decode_image(f, "x"))[:2] for f in episode.images["top"]]
        assert frames == [(e, t) for t in range(n)]
    return source


def lines(file: Path, rows: list[Any]) -> None:
    file.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")


def rename_fields(root: Path, old: str, new: str) -> None:
    info = json.loads((root / "meta/info.json").read_text())
    edit_info(root, **{k: info[k].replace(old, new) for k in ("data_path", "video_path")})


EPISODES = [
    {"episode_index": e, "tasks": [TASKS[e % 2]], "length": n} for e, n in enumerate(LENGTHS)
]
V2: dict[str, Callable[[Path], Any]] = {
    "chunk_index": lambda r: rename_fields(r, "episode_chunk", "chunk_index"),
    "file_index": lambda r: rename_fields(r, "episode_index", "file_index"),
    "chunks_size as text": lambda r: edit_info(r, chunks_size="2"),
    "fps null": lambda r: edit_info(r, fps=None),
    "fps missing": lambda r: edit_info(r, fps=...),
    "fps as text": lambda r: edit_info(r, fps="10.0"),
    "no version": lambda r: edit_info(r, codebase_version=...),
    "version without v": lambda r: edit_info(r, codebase_version="2.1"),
    "no templates": lambda r: edit_info(r, data_path=..., video_path=None),
    "action without names": lambda r: edit_feature(r, "action", {"names": ...}),
    "action without shape": lambda r: edit_feature(r, "action", {"shape": ...}),
    "action without dtype": lambda r: edit_feature(r, "action", {"dtype": ...}),
    "empty stamps feature": lambda r: edit_feature(r, "timestamp", {"shape": [], "names": ...}),
    "undeclared action": lambda r: edit_info(
        r,
        features={
            k: f
            for k, f in json.loads((r / "meta/info.json").read_text())["features"].items()
            if k != "action"
        },
    ),
    "byte-order marks": lambda r: [
        f.write_text(f.read_text("utf-8"), "utf-8-sig") for f in (r / "meta").glob("*.json*")
    ],
    "windows line ends": lambda r: [
        f.write_bytes(f.read_bytes().replace(b"\n", b"\r\n")) for f in (r / "meta").glob("*.jsonl")
    ],
    "no tasks file": lambda r: (r / "meta/tasks.jsonl").unlink(),
    "tasks called instruction": lambda r: lines(
        r / "meta/tasks.jsonl", [{"task_index": n, "instruction": t} for n, t in enumerate(TASKS)]
    ),
    "no task column": lambda r: [edit_table(t, task_index=None) for t in tables_of(r)],
    "lengths as text": lambda r: lines(
        r / "meta/episodes.jsonl", [e | {"length": str(e["length"])} for e in EPISODES]
    ),
    "no lengths": lambda r: lines(
        r / "meta/episodes.jsonl",
        [{k: v for k, v in e.items() if k != "length"} for e in EPISODES],
    ),
    "all lines twice": lambda r: lines(r / "meta/episodes.jsonl", [*EPISODES, *EPISODES]),
    "shape as text": lambda r: edit_feature(r, "action", {"shape": "three"}),
    "nested shape": lambda r: edit_feature(r, "action", {"shape": [[3]]}),
    "type in capitals": lambda r: edit_feature(r, "observation.images.top", {"dtype": "VIDEO"}),
    "rows in disorder": lambda r: [_reverse(t) for t in tables_of(r)],
    "no frame_index": lambda r: [edit_table(t, frame_index=None) for t in tables_of(r)],
    "no stamps": lambda r: [edit_table(t, timestamp=None) for t in tables_of(r)],
    "no episode_index": lambda r: [edit_table(t, episode_index=None) for t in tables_of(r)],
}


def _reverse(file: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    pq.write_table(table.take(list(range(table.num_rows))[::-1]), file)


@pytest.mark.parametrize("kind", V2)
def test_version_2_descriptions_with_gaps_give_the_right_episodes(
    kind: str, tmp_path: Path
) -> None:
    root = write_lerobot2(tmp_path / "d")
    V2[kind](root)
    source = check_episodes(root)
    if kind.startswith("fps"):
        assert source.mapping.fps == 10
    if kind in ("fps null", "fps missing"):
        assert any("the time stamps give 10 Hz" in n for n in source.notes)


V3: dict[str, Callable[[Path], Any]] = {
    "episode_chunk": lambda r: rename_fields(r, "chunk_index", "episode_chunk"),
    "version without v": lambda r: edit_info(r, codebase_version="3.0"),
    "no version": lambda r: edit_info(r, codebase_version=...),
    "no templates": lambda r: edit_info(r, data_path=None, video_path=...),
    "more columns in tasks": lambda r: edit_table(
        r / "meta/tasks.parquet", skill=["a", "b"], task=list(TASKS), __index_level_0__=None
    ),
    "tasks as lines": lambda r: (
        (r / "meta/tasks.parquet").unlink(),
        lines(r / "meta/tasks.jsonl", [{"task_index": n, "task": t} for n, t in enumerate(TASKS)]),
    ),
    "lengths as text": lambda r: edit_table(
        r / "meta/episodes/chunk-000/file-000.parquet", length=[str(n) for n in LENGTHS]
    ),
    "no end of videos": lambda r: edit_table(
        r / "meta/episodes/chunk-000/file-000.parquet",
        **{"videos/observation.images.wrist/to_timestamp": None},
    ),
}


@pytest.mark.parametrize("kind", V3)
def test_version_3_descriptions_with_gaps_give_the_right_episodes(
    kind: str, tmp_path: Path
) -> None:
    root = write_lerobot3(tmp_path / "d")
    V3[kind](root)
    check_episodes(root)


def test_separators_of_unicode_stay_in_texts(tmp_path: Path) -> None:
    root = write_lerobot2(tmp_path / "d")
    tasks = ["lift\u2028the cup\u0085now", "öffne\u2029 die\x0b Schublade"]
    lines(root / "meta/tasks.jsonl", [{"task_index": n, "task": t} for n, t in enumerate(tasks)])
    source = RobotSource(str(root), Mapping(size=32))
    assert [source[n].instruction for n in range(3)] == [tasks[0], tasks[1], tasks[0]]


def test_episode_numbers_with_gaps_and_cameras_with_dots(tmp_path: Path) -> None:
    root = write_lerobot2(tmp_path / "d")
    edit_info(root, chunks_size=1000, data_path="d/{episode_index}.parquet")
    (root / "d").mkdir()
    for n, table in zip((2, 5, 9), tables_of(root), strict=True):
        table.rename(root / f"d/{n}.parquet")
        for key in ("top", "wrist"):
            old = f"videos/*/observation.images.{key}/episode_{(2, 5, 9).index(n):06d}.mp4"
            place = root / f"videos/chunk-000/a.{key}.rgb.v1/episode_{n:06d}.mp4"
            place.parent.mkdir(parents=True, exist_ok=True)
            next(root.glob(old)).rename(place)
    info = json.loads((root / "meta/info.json").read_text())
    names = {f"observation.images.{k}": f"a.{k}.rgb.v1" for k in ("top", "wrist")}
    edit_info(root, features={names.get(k, k): f for k, f in info["features"].items()})
    rows = [e | {"episode_index": n} for e, n in zip(EPISODES, (2, 5, 9), strict=True)]
    lines(root / "meta/episodes.jsonl", rows)
    source = RobotSource(str(root), Mapping(size=32))
    assert [source[n].key for n in range(3)] == ["0000002", "0000005", "0000009"]
    assert list(source[0].images) == ["a_top_rgb_v1", "a_wrist_rgb_v1"]
    assert np.allclose(source[1].actions, [action(1, t) for t in range(8)])


BROKEN: list[tuple[Callable[[Path], Any], str]] = [
    (lambda r: (r / "meta/info.json").write_text("{"), r"info\.json: not JSON"),
    (lambda r: (r / "meta/info.json").write_text("[]"), r"info\.json: expected a JSON object"),
    (lambda r: (r / "meta/info.json").write_bytes(b"\xff\xfa{}"), r"info\.json: unreadable"),
    (lambda r: edit_info(r, features=None), r"features: expected an object"),
    (lambda r: edit_info(r, features={"action": 3}), r"features: expected an object"),
    (lambda r: edit_info(r, data_path="d/{chunk}.parquet"), r"data_path: .* unknown field \{chunk"),
    (lambda r: edit_info(r, video_path="{video_key"), r"video_path: .*fields are"),
    (lambda r: edit_info(r, codebase_version="v1.6"), r"codebase_version 'v1\.6'"),
    (lambda r: lines(r / "meta/episodes.jsonl", [3]), r"line 1 is not a JSON object"),
    (lambda r: lines(r / "meta/episodes.jsonl", [{"length": 3}]), r"episode_index: expected a w"),
    (
        lambda r: lines(r / "meta/episodes.jsonl", [{"episode_index": 0, "length": "many"}]),
        r"episode 0: length: expected a whole number, found 'many'",
    ),
    (
        lambda r: lines(r / "meta/tasks.jsonl", [{"task": "x"}]),
        r"tasks\.jsonl: expected a number task_index",
    ),
    (
        lambda r: [
            f.write_bytes(b"version https://git-lfs.github.com/spec/v1\n") for f in tables_of(r)
        ],
        r"parquet: a Git LFS pointer, not the data; run `git lfs pull`",
    ),
    (
        lambda r: (r / "meta/info.json").write_text("version https://git-lfs.github.com/spec/v1"),
        r"info\.json: a Git LFS pointer",
    ),
    (
        lambda r: (r / "meta/modality.json").write_text('{"state": {"arm": 3}}'),
        r"modality\.json: expected state, action and video",
    ),
]


@pytest.mark.parametrize("case", range(len(BROKEN)))
def test_descriptions_without_meaning_give_one_line(case: int, tmp_path: Path) -> None:
    spoil, message = BROKEN[case]
    root = write_lerobot2(tmp_path / "d")
    spoil(root)
    with pytest.raises((DataError, BadSample), match=message):
        RobotSource(str(root), Mapping(size=32))[0]


def test_recorded_splits_are_kept(tmp_path: Path) -> None:
    def splits(value: Any) -> tuple[list[str], tuple[str, ...]]:
        edit_info(root, splits=value)
        source = RobotSource(str(root), Mapping(size=32))
        return [source[n].split for n in range(3)], tuple(source.notes)

    root = write_lerobot2(tmp_path / "d")
    assert splits({"train": "0:2", "val": "2:3"}) == (["train", "train", "val"], ())
    assert splits({"train": "0:1,2:3", "validation": "1:2"})[0] == ["train", "val", "train"]
    assert splits({"train": "0:2", "test": "2:3"})[0] == ["train", "train", "val"]
    assert splits({"train": "0:3"}) == (["", "", ""], ())
    found, notes = splits({"train": "80%", "val": "20%"})
    assert found == ["", "", ""] and "not ranges of episodes" in notes[0]
