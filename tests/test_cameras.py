"""Cameras are judged over the whole data set; depth and empty cameras are left out and named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from lerobot_files import edit_feature, edit_table, tables_of, write_lerobot2, write_lerobot3
from PIL import Image
from robot_files import LENGTHS, image_of, png, write_folder

from vla.data.camera_choice import EPISODES, contents
from vla.data.images import decode_image
from vla.data.mapping import Mapping
from vla.data.readers import open_reader
from vla.data.robot import RobotSource
from vla.errors import BadSample, DataError


def add_camera(root: Path, name: str, images: dict[tuple[int, int], np.ndarray]) -> None:
    """A further camera of a plain folder; images of (episode, row), others are black."""
    for e, n in enumerate(LENGTHS):
        folder = root / f"épisode {e}" / name
        folder.mkdir()
        for t in range(n):
            image = images.get((e, t), np.zeros((32, 32, 3), np.uint8))
            Image.fromarray(image).save(folder / f"{t}.png")


def source_of(root: Path, **options: object) -> RobotSource:
    mapping = Mapping(size=32, image_format="ppm", **options)  # type: ignore[arg-type]
    return RobotSource(str(root), mapping)


@pytest.mark.parametrize("place", [(0, 2), (1, 4), (2, 0), (2, 2)])
def test_a_camera_with_one_image_among_black_ones_is_kept(
    place: tuple[int, int], tmp_path: Path
) -> None:
    root = write_folder(tmp_path / "d")
    add_camera(root, "wrist", {place: image_of(*place)})
    source = source_of(root)
    assert source.mapping.cameras == {"top": "top", "wrist": "wrist"} and not source.notes


@pytest.mark.parametrize("grey", [0, 128])
def test_a_camera_of_one_colour_everywhere_is_left_out_and_named(grey: int, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    blue = np.full((32, 32, 3), (0, 0, grey), np.uint8)
    add_camera(root, "wrist", {(e, t): blue for e, n in enumerate(LENGTHS) for t in range(n)})
    source = source_of(root)
    assert list(source.mapping.cameras) == ["top"]
    assert "camera 'wrist' is left out: all images of 3 sampled episodes" in source.notes[0]
    named = source_of(root, cameras={"a": "top", "b": "wrist"})
    assert list(named[0].images) == ["a", "b"]
    assert "camera 'b' has one colour" in named.notes[0]
    for file in root.glob("*/top/*.png"):
        Image.fromarray(blue).save(file)
    with pytest.raises(DataError, match=r"no camera; image fields are top, wrist; .*cameras=\{\}"):
        source_of(root)


def test_few_images_are_read_where_the_first_has_content(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d", (3,))
    for n in range(1, 20):
        shutil.copytree(root / "épisode 0", root / f"épisode {n}")
    reader = open_reader(root)
    seen: list[int] = []
    original = type(reader).__getitem__

    class Counting(type(reader)):  # type: ignore[misc]
        def __getitem__(self, index: int) -> object:
            seen.append(index)
            return original(self, index)

    reader.__class__ = Counting
    assert contents(reader, ["top"]) == {"top": "colour"} and seen == [0]
    for folder in reader.path.glob("*/top"):
        for file in folder.iterdir():
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file)
    seen.clear()
    assert contents(reader, ["top"]) == {"top": "blank"} and len(seen) == EPISODES
    assert seen[0] == 0 and seen[-1] == 19


def test_a_damaged_first_episode_does_not_hide_a_camera(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    for file in (root / "épisode 0/top").iterdir():
        file.write_bytes(b"\x89PNG nothing")
    source = source_of(root)
    assert list(source.mapping.cameras) == ["top"] and len(source[1].actions) == LENGTHS[1]
    with pytest.raises(BadSample, match=r"0000\.png: row 0: unreadable image"):
        source[0]


def depth_image(row: int) -> np.ndarray:
    mm = np.linspace(400, 1200, 32, dtype=np.uint16)[None].repeat(32, 0) + np.uint16(row)
    mm[:4, :4] = 0
    return mm


def test_depth_is_left_out_and_named_or_scaled_over_the_stated_range(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    add_camera(root, "rear", {(e, t): depth_image(t) for e in range(3) for t in range(9)})
    source = source_of(root)
    assert list(source.mapping.cameras) == ["top"]
    assert "camera 'rear' is left out: it records depth" in source.notes[0]
    named = source_of(root, cameras={"far": "rear"}, depth_range_mm=(400.0, 1200.0))
    image = decode_image(named[0].images["far"][0], "x")
    assert image[0, 0, 0] == 0 and image[9, 0, 0] == 0 and image[9, -1, 0] == 255
    assert abs(int(image[9, 16, 0]) - 132) < 3
    assert "400 to 1200 mm become grey levels 0 to 255" in named.notes[0]
    with pytest.raises(DataError, match="depth_range_mm"):
        source_of(root, cameras={"far": "rear"}, depth_range_mm=(9.0, 9.0))


def test_one_depth_image_among_colour_images_is_a_bad_sample(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    Image.fromarray(depth_image(0)).save(root / "épisode 1/top/0003.png")
    source = source_of(root)
    assert len(source[0].actions) == LENGTHS[0]
    with pytest.raises(BadSample, match=r"row 3: camera 'top' has a depth image among colour"):
        source[1]


@pytest.mark.parametrize("declared", [True, False])
def test_depth_in_lerobot_tables_is_left_out_declared_or_not(
    declared: bool, tmp_path: Path
) -> None:
    root = write_lerobot2(tmp_path / "d")
    feature = {"dtype": "image", "shape": [32, 32, 1], "names": ["height", "width", "channel"]}
    edit_feature(root, "observation.images.range", feature | {"info": {"is_depth_map": declared}})
    for table, n in zip(tables_of(root), LENGTHS, strict=True):
        cells = [{"bytes": png(depth_image(t)), "path": None} for t in range(n)]
        edit_table(table, **{"observation.images.range": cells})
    source = source_of(root)
    assert sorted(source.mapping.cameras) == ["top", "wrist"] and "depth" in source.notes[0]
    named = source_of(root, cameras={"d": "observation.images.range"})
    assert decode_image(named[1].images["d"][0], "x").max() == 102  # 1200 of 3000 mm


def test_a_declared_camera_without_files_matters_only_if_it_is_named(tmp_path: Path) -> None:
    for name, write in (("v2", write_lerobot2), ("v3", write_lerobot3)):
        root = write(tmp_path / name)
        edit_feature(root, "observation.images.side", {"dtype": "video", "shape": [32, 32, 3]})
        source = source_of(root)
        assert sorted(source[0].images) == ["top", "wrist"]
        assert "'observation.images.side' is declared, but has no files" in source.notes[0]
        looked = r"looked for .*episode_000000\.mp4" if name == "v2" else "has no files"
        with pytest.raises(DataError, match=looked):
            source_of(root, cameras={"side": "observation.images.side"})


def test_a_video_missing_in_one_episode_makes_that_episode_bad(tmp_path: Path) -> None:
    root = write_lerobot2(tmp_path / "d")
    (root / "videos/chunk-000/observation.images.top/episode_000001.mp4").unlink()
    source = source_of(root)
    assert len(source) == 3 and len(source[0].actions) == LENGTHS[0]
    with pytest.raises(DataError, match=r"episode_000001\.mp4: this video of episode 1 is missing"):
        source[1]
    assert len(source_of(root, cameras={"wrist": "observation.images.wrist"})[1].actions) == 8
    available = RobotSource(str(root), Mapping(size=32), skip_missing=True)
    assert [available[n].key for n in range(len(available))] == ["0000000", "0000002"]


def test_a_policy_without_cameras_is_possible(tmp_path: Path) -> None:
    assert source_of(write_folder(tmp_path / "d"), cameras={}).mapping.cameras == {}
