"""Robot data in: every format gives the same episodes, frames are never guessed, broken files are one clear error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY
from robot_files import (
    LENGTHS,
    NAMES,
    TASKS,
    action,
    picture,
    says,
    write_aloha,
    write_folder,
    write_lerobot2,
    write_lerobot3,
    write_rlds,
    write_robomimic,
    write_video,
)  # fmt: skip

from vla.data.lerobot_out import to_lerobot
from vla.data.manifest import DataError, load_manifest
from vla.data.mapping import Mapping
from vla.data.pack import pack, pack_from
from vla.data.pictures import decode_image
from vla.data.pipeline import BatchStream, WindowConfig
from vla.data.readers import detect, open_reader
from vla.data.robot import RobotSource
from vla.data.rotations import RotationConfig, turn
from vla.data.samples import cut_frame, read_json, read_steps
from vla.data.shards import untarred
from vla.data.sources import TabletopSource
from vla.sim.scene import SceneConfig

REAL = REPOSITORY.parent / "shared" / "realdata"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is not here")
FORMATS: dict[str, Callable[[Path], Path]] = {
    "lerobot2": write_lerobot2, "lerobot3": write_lerobot3, "rlds": write_rlds, "robomimic": lambda p: write_robomimic(p / "demo.hdf5"),
    "aloha": write_aloha, "folder": write_folder, "folder_json": lambda p: write_folder(p, table="json"), "folder_npz": lambda p: write_folder(p, table="npz"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_episodes(name: str, tmp_path: Path) -> None:
    source = RobotSource(str(FORMATS[name](tmp_path / "Daten ü")), Mapping(size=32, fps=10))
    assert len(source) == len(LENGTHS)
    for e, length in enumerate(LENGTHS):
        episode = source[e]
        assert np.allclose(episode.actions, [action(e, t) for t in range(length)], atol=1e-6)
        assert episode.instruction in TASKS and episode.state is not None and len(episode.state) == length
        for c, camera in enumerate(sorted(episode.images)):
            pictures = [decode_image(f, "x") for f in episode.images[camera]]
            assert [says(p) for p in pictures] == [(e, t, c) for t in range(length)]
    if name.startswith("lerobot") or name in ("folder", "folder_json"):
        assert episode.instruction == TASKS[0] and source[1].instruction == TASKS[1]
    if name.startswith("lerobot") or name == "folder":
        assert source.action_space is not None and list(source.action_space.names) == NAMES
    if name == "rlds":
        assert list(episode.images) == ["image_0"]  # a camera that shows nothing is none


@real
def test_every_frame_of_lerobots_own_files_is_the_right_one() -> None:
    for kind in ("image", "video"):
        reader = open_reader(REAL / "lerobot3_written" / kind)
        assert len(reader) == 4
        for e in range(4):
            recording = reader[e]
            for name, right in (("observation.images.top", 200), ("observation.images.wrist", 90)):
                for t, image in enumerate(recording.frames[name](range(recording.steps))):
                    assert abs(image[:44, :44].mean() - (40 + 40 * e)) < 8 and abs(image[52:, :44].mean() - (20 + 8 * t)) < 3.9
                    assert abs(image[:, 52:].mean() - right) < 8
                    assert np.allclose(recording.numbers["action"][t], [e + 0.5, t + 0.25, -t, t % 2])
                assert t == recording.steps - 1


@real
def test_an_incomplete_download_is_named_and_packed_on_request(tmp_path: Path) -> None:
    folder = REAL / "g1_lerobot21"
    with pytest.raises(
        DataError, match=r"92 of the 100 episodes .* have no files: 0-9, 11-19, 22-23, 26-27, 31-99; .* --skip-missing"
    ):
        RobotSource(str(folder))
    source = RobotSource(str(folder), Mapping(size=64, rate_hz=5), skip_missing=True)
    assert len(source) == 8 and source.action_space is not None and source.action_space.dim == 26
    assert source.action_space.names[0] == "kLeftShoulderPitch" and source.action_space.rate_hz == 5
    episode = source[0]
    assert episode.key == "0000010" and len(episode.actions) == len(episode.images["cam_high"]) == 49  # 290 rows at 30 Hz


@real
def test_bridge_packs_and_streams(tmp_path: Path) -> None:
    manifest = pack_from(REAL / "bridge_rlds", tmp_path / "b", ["source.mapping.fps=5", "source.mapping.size=64", "shard_size=5"])
    assert (
        manifest["samples"] == 25 and manifest["steps"] == 250 and manifest["cameras"] == ["image_0", "image_1", "image_2"]
    )  # image_3 is black
    space = manifest["action_space"]
    assert np.isfinite(space["low"]).all() and (np.array(space["low"]) < space["high"]).all()
    stream = BatchStream({"b": str(tmp_path / "b")}, {"b": 1.0}, WindowConfig(cameras=("image_0",), horizon=4), 4, False)
    batch = next(iter(stream))
    assert batch.robots[0].actions_KHA.shape == (4, 4, 7) and batch.robots[0].state_BTP is not None


def test_unknown_places_are_explained(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"not a known robot data set \(there is: notes.txt\); expected LeRobot"):
        detect(tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        detect(tmp_path / "nowhere")


def _edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN: list[tuple[str, Callable[[Path], Any], str]] = [
    ("lerobot2", lambda p: _truncate(p / "data/chunk-000/episode_000000.parquet"), r"episode_000000\.parquet: damaged or unfinished table .*finalize"),
    ("lerobot2", lambda p: write_video(p / "videos/chunk-000/observation.images.top/episode_000000.mp4", [picture(0, 0), picture(0, 1)]),
     r"episode 0 needs a frame at 0\.200 s, the video has frames up to 0\.100 s"),
    ("lerobot2", lambda p: (p / "meta/tasks.jsonl").write_text('{"task_index": 7, "task": "x"}\n'), r"episode 0 has task 0, which the task list lacks"),
    ("lerobot2", lambda p: (p / "meta/tasks.jsonl").unlink(), r"tasks\.jsonl: missing"),
    ("lerobot2", lambda p: (p / "meta/episodes.jsonl").write_text('{"episode_index": 0\n'), r"episodes\.jsonl: line 1 is not JSON"),
    ("lerobot2", lambda p: _edit(p / "meta/info.json", lambda d: d["features"]["action"].update(shape=[4], names=None)), r"3 numbers a row, meta/info.json declares 4"),
    ("lerobot2", lambda p: _edit(p / "meta/info.json", lambda d: d.update(codebase_version="v9.0")), r"codebase_version 'v9\.0'; this program reads"),
    ("lerobot2", lambda p: _truncate(p / "videos/chunk-000/observation.images.top/episode_000000.mp4"), r"episode_000000\.mp4: damaged video"),
    ("rlds", lambda p: _truncate(p / "toy-train.tfrecord-00000-of-00001"), r"cut off after \d+ bytes"),
    ("rlds", lambda p: (p / "features.json").unlink(), r"features\.json: missing"),
    ("rlds", lambda p: (p / "toy-train.tfrecord-00000-of-00001").rename(p / "toy-train.tfrecord-00000-of-00003"), r"2 of 3 \.tfrecord files are missing"),
    ("robomimic", lambda p: _truncate(p / "demo.hdf5"), r"not a whole HDF5 file"),
    ("folder", lambda p: (p / "épisode 0/top/0002.png").unlink(), r"4 pictures for 5 rows"),
    ("folder", lambda p: (p / "épisode 0/steps.csv").write_text("action.x,state.x\n1,2\n"), r"5 pictures for 1 rows"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "spoil", "message"), BROKEN)
def test_broken_data_is_one_clear_error(name: str, spoil: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    FORMATS[name](tmp_path / "d")
    spoil(tmp_path / "d")
    with pytest.raises(DataError, match=message):
        source = RobotSource(str(tmp_path / "d"), Mapping(size=32, fps=10))
        source[0]


def test_bad_episodes_are_left_out_listed_and_too_many_fail(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    (root / "épisode 1/top/0002.png").unlink()
    with pytest.raises(DataError, match="7 pictures for 8 rows"):
        pack_from(root, tmp_path / "a", ["source.mapping.size=32", "shard_size=1"])
    with pytest.raises(DataError, match=r"1 of 3 samples are bad, more than --max-bad 0\.1; first: .*7 pictures for 8 rows"):
        pack_from(root, tmp_path / "b", ["source.mapping.size=32", "shard_size=1"], skip_bad=True)
    manifest = pack_from(root, tmp_path / "c", ["source.mapping.size=32", "shard_size=1"], skip_bad=True, max_bad=0.5)
    assert manifest["samples"] == 2 and manifest["quarantined"] == 1
    assert json.loads((tmp_path / "c/quarantine.json").read_text())[0]["index"] == 1


def test_several_processes_write_the_same_shards(tmp_path: Path) -> None:
    root = write_lerobot3(tmp_path / "d")
    made = [pack(RobotSource(str(root), Mapping(size=32)), tmp_path / str(n), 1, 0.3, False, workers=n) for n in (0, 2)]
    assert [r["sha256"] for r in made[0]["shards"]] == [r["sha256"] for r in made[1]["shards"]]
    assert load_manifest(tmp_path / "2") == made[1]


def test_out_to_lerobot_and_back_is_the_same(tmp_path: Path) -> None:
    scene = SceneConfig(skills=("pick", "near"), cards=(0, 0), concepts=8)
    packed = pack(TabletopSource(scene, 5, size=32, cameras=("top", "wrist")), tmp_path / "a", 2, 0.3, False)
    out = to_lerobot(tmp_path / "a", tmp_path / "lerobot", progress=False)
    reader = open_reader(out)
    assert reader.format == "lerobot" and len(reader) == 5 and reader.fps == packed["action_space"]["rate_hz"]
    source = RobotSource(str(out), Mapping(size=32, binary={n: 0.5 for n in packed["action_space"]["binary"]}))
    kept = {}
    for split in ("train", "val"):
        stream = iter([{"url": str(tmp_path / "a" / s)} for s in packed["splits"][split]])
        kept |= {len(kept) + n: s for n, s in enumerate(untarred(tmp_path / "a", stream))}
    for n, sample in kept.items():
        meta, steps, episode = read_json(sample), read_steps(sample), source[n]
        assert episode.instruction == meta["instruction"] and np.array_equal(episode.actions, steps["actions"])
        assert ("state" in steps) == (episode.state is not None)
        if episode.state is not None:
            assert np.allclose(episode.state, steps["state"])
        for camera in meta["cameras"]:
            for t, frame in enumerate(episode.images[camera]):
                before = decode_image(cut_frame(sample, meta, camera, t), "a").astype(float)
                assert np.abs(decode_image(frame, "b") - before).mean() < 9  # noisy 32 px pictures, half the colour resolution
    with pytest.raises(DataError, match="exists already"):
        to_lerobot(tmp_path / "a", tmp_path / "lerobot", progress=False)


def test_mapping_makes_actions_as_asked(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    rules = Mapping(
        size=32,
        binary={"grip": 0.5},
        invert=["grip"],
        summed=["y"],
        rate_hz=5,
        instruction="{task}, slowly",
        plan="subtask",
        units=["m", "m", "1"],
    )
    source = RobotSource(str(root), rules)
    episode = source[1]
    assert len(episode.actions) == 4 and episode.fps == 5 and episode.plans == ["step 0", "step 2", "step 4", "step 6"]
    assert np.allclose(episode.actions[:, 1], [0.1, 0.5, 0.9, 1.3]) and set(episode.actions[:, 2]) == {1.0}
    assert episode.instruction == f"{TASKS[1]}, slowly"
    assert (
        source.action_space is not None and source.action_space.binary == ("grip",) and source.action_space.units == ("m", "m", "1")
    )
    delta = RobotSource(str(root), Mapping(size=32, action=["action[0:2]"], delta={"x": "x"}))[0]
    assert delta.actions.shape[1] == 2 and np.allclose(delta.actions[:, 0], 0.0)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (Mapping(action=["acton"]), r"mapping\.action: no field 'acton'; its number fields are action, state"),
        (Mapping(action=["action[0:9]"]), r"action has dims 0 to 3"),
        (Mapping(binary={"gripper": 0.5}), r"mapping\.binary: no 'gripper'; choices: x, y, grip"),
        (Mapping(cameras={"a": "front"}), r"mapping\.cameras: no 'front'; choices: top"),
        (Mapping(rate_hz=50), r"rate_hz=50: the recording has only 10\.0 rows a second"),
        (Mapping(names=["a"]), r"1 names for 3 action dims"),
        (Mapping(plan="nothing"), r"mapping\.plan: no 'nothing'; choices: subtask"),
    ],
)
def test_mistakes_in_the_mapping_are_explained(rules: Mapping, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        RobotSource(str(write_folder(tmp_path / "d")), rules)


@pytest.mark.parametrize("kind", ["quaternion_xyzw", "quaternion_wxyz", "euler_xyz", "axis_angle", "rotation_6d"])
def test_rotations_there_and_back(kind: Any) -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 3)) * 0.7
    there = turn(vectors, RotationConfig("a", "axis_angle", kind))
    assert np.allclose(turn(there, RotationConfig("a", kind, "axis_angle")), vectors, atol=1e-9)
