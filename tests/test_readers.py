"""Readers of robot data: equal episodes from every format, exact frames, clear errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from formats import FORMATS, write_format
from lerobot_files import write_lerobot3
from robot_files import (
    LENGTHS,
    NAMES,
    TASKS,
    action,
    identify,
)

from vla.benchmarks.tabletop.scene import SceneConfig
from vla.benchmarks.tabletop.sources import TabletopSource
from vla.data.config import DataConfig, WindowConfig
from vla.data.export_lerobot import to_lerobot
from vla.data.images import decode_image
from vla.data.manifest import load_manifest
from vla.data.mapping import Mapping
from vla.data.pack import pack, pack_from
from vla.data.packed import iter_samples
from vla.data.pipeline import BatchStream
from vla.data.readers import open_reader
from vla.data.robot import RobotSource
from vla.data.samples import read_frame, read_json, read_steps
from vla.errors import DataError

REAL = REPOSITORY.parent / "shared" / "realdata"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is not here")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_episodes(name: str, tmp_path: Path) -> None:
    source = RobotSource(str(write_format(name, tmp_path / "Daten ü")), Mapping(size=32, fps=10))
    assert len(source) == len(LENGTHS)
    for e, length in enumerate(LENGTHS):
        episode = source[e]
        assert np.allclose(episode.actions, [action(e, t) for t in range(length)], atol=1e-6)
        assert (
            episode.instruction in TASKS
            and episode.state is not None
            and len(episode.state) == length
        )
        for c, camera in enumerate(sorted(episode.images)):
            images = [decode_image(f, "x") for f in episode.images[camera]]
            assert [identify(i) for i in images] == [(e, t, c) for t in range(length)]
    if name.startswith("lerobot") or name in ("folder", "folder_json"):
        assert episode.instruction == TASKS[0] and source[1].instruction == TASKS[1]
    if name.startswith("lerobot") or name == "folder":
        assert source.action_space is not None and list(source.action_space.names) == NAMES
    if name == "rlds":
        assert list(episode.images) == ["image_0"]  # a camera of one colour is left out


@real
def test_every_frame_of_real_lerobot_videos_is_correct() -> None:
    for kind in ("image", "video"):
        reader = open_reader(REAL / "lerobot3_written" / kind)
        assert len(reader) == 4
        for e in range(4):
            recording = reader[e]
            for name, right in (("observation.images.top", 200), ("observation.images.wrist", 90)):
                for t, image in enumerate(recording.frames[name](range(recording.steps))):
                    assert (
                        abs(image[:44, :44].mean() - (40 + 40 * e)) < 8
                        and abs(image[52:, :44].mean() - (20 + 8 * t)) < 3.9
                    )
                    assert abs(image[:, 52:].mean() - right) < 8
                    assert np.allclose(
                        recording.numbers["action"][t], [e + 0.5, t + 0.25, -t, t % 2]
                    )
                assert t == recording.steps - 1


@real
def test_an_incomplete_download_is_refused_or_packed_with_skip_missing(tmp_path: Path) -> None:
    folder = REAL / "g1_lerobot21"
    with pytest.raises(
        DataError,
        match=r"92 of the 100 episodes .* have no files: "
        r"0-9, 11-19, 22-23, 26-27, 31-99; .* --skip-missing",
    ):
        RobotSource(str(folder))
    source = RobotSource(str(folder), Mapping(size=64, rate_hz=5), skip_missing=True)
    assert len(source) == 8 and source.action_space is not None and source.action_space.dim == 26
    assert source.action_space.names[0] == "kLeftShoulderPitch" and source.action_space.rate_hz == 5
    episode = source[0]
    assert (
        episode.key == "0000010" and len(episode.actions) == len(episode.images["cam_high"]) == 49
    )  # 290 rows at 30 Hz


@real
def test_bridge_packs_and_streams(tmp_path: Path) -> None:
    manifest = pack_from(
        REAL / "bridge_rlds",
        tmp_path / "b",
        ["source.mapping.fps=5", "source.mapping.size=64", "shard_size=5"],
    )
    assert (
        manifest.samples == 25
        and manifest.steps == 250
        and manifest.cameras == ("image_0", "image_1", "image_2")
    )  # image_3 is black
    space = manifest.action_space
    assert np.isfinite(space.low).all() and (np.array(space.low) < space.high).all()
    window = WindowConfig(cameras=("image_0",), horizon=4)
    config = DataConfig({"b": str(tmp_path / "b")}, {"b": 1.0}, window)
    batch = next(iter(BatchStream(config, 4, False)))
    assert batch.robots[0].actions_KHA.shape == (4, 4, 7) and batch.robots[0].state_BTP is not None


def test_unknown_formats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(
        DataError, match=r"not a known robot data set; it has notes.txt; expected one of lerobot"
    ):
        open_reader(tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        open_reader(tmp_path / "nowhere")


@pytest.mark.slow
def test_several_processes_write_the_same_shards(tmp_path: Path) -> None:
    root = write_lerobot3(tmp_path / "d")
    made = [
        pack(RobotSource(str(root), Mapping(size=32)), tmp_path / str(n), 1, 0.3, False, workers=n)
        for n in (0, 2)
    ]
    assert [s.sha256 for s in made[0].shards] == [s.sha256 for s in made[1].shards]
    assert load_manifest(tmp_path / "2") == made[1]


def test_export_to_lerobot_and_reading_it_preserves_episodes(tmp_path: Path) -> None:
    scene = SceneConfig(skills=("pick", "near"), cards=(0, 0), concepts=8)
    packed = pack(
        TabletopSource(scene, 5, size=32, cameras=("top", "wrist")), tmp_path / "a", 2, 0.3, False
    )
    out = to_lerobot(tmp_path / "a", tmp_path / "lerobot", progress=False)
    reader = open_reader(out)
    assert (
        reader.format == "lerobot"
        and len(reader) == 5
        and reader.fps == packed.action_space.rate_hz
    )
    source = RobotSource(
        str(out), Mapping(size=32, binary={n: 0.5 for n in packed.action_space.binary})
    )
    kept = {}
    for split in ("train", "val"):
        samples = iter_samples(tmp_path / "a", split)
        kept |= {len(kept) + n: s for n, s in enumerate(samples)}
    for n, sample in kept.items():
        meta, steps, episode = read_json(sample), read_steps(sample), source[n]
        assert episode.instruction == meta["instruction"] and np.array_equal(
            episode.actions, steps["actions"]
        )
        assert ("state" in steps) == (episode.state is not None)
        if episode.state is not None:
            assert np.allclose(episode.state, steps["state"])
        for camera in meta["cameras"]:
            for t, frame in enumerate(episode.images[camera]):
                before = decode_image(read_frame(sample, meta, camera, t), "a").astype(float)
                assert (
                    np.abs(decode_image(frame, "b") - before).mean() < 9
                )  # noisy 32 px images, half the colour resolution
    with pytest.raises(DataError, match="exists already"):
        to_lerobot(tmp_path / "a", tmp_path / "lerobot", progress=False)
