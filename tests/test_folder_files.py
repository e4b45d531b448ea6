"""The plain folder: natural order of names, gaps, damaged and hidden files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from robot_files import identify, image_of, write_folder

from vla.data.images import decode_image
from vla.data.mapping import Mapping
from vla.data.pack import pack_from
from vla.data.readers.files import natural_key, natural_sorted
from vla.data.robot import RobotSource
from vla.errors import BadSample, DataError


def source_of(root: Path, **options: Any) -> RobotSource:
    return RobotSource(str(root), Mapping(size=32, image_format="ppm", **options))


@pytest.mark.parametrize("width", [1, 2])
def test_numbers_in_names_are_ordered_as_numbers(width: int, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d", (12, 11))
    for file in sorted(root.glob("*/top/*.png")):
        file.rename(file.with_name(f"frame-{int(file.stem):0{width}d}.png"))
    for old, new in (("épisode 0", "run_10"), ("épisode 1", "run_9")):
        (root / old).rename(root / new)
    source = source_of(root)
    assert [source[n].key for n in range(2)] == ["run_9", "run_10"]
    images = [decode_image(f, "x") for f in source[1].images["top"]]
    assert [identify(i)[1] for i in images] == list(range(12))


def test_natural_order_and_ambiguous_order() -> None:
    names = ["a10", "a9", "a1b2", "a1b10", "b", "10", "9"]
    assert sorted(names, key=natural_key) == ["9", "10", "a1b2", "a1b10", "a9", "a10", "b"]
    for bad in (["1.png", "01.png"], ["1.png", "1.jpg"], ["0.5.png", "0.25.png"]):
        with pytest.raises(DataError, match=r"same number|ambiguous"):
            natural_sorted(Path("d") / n for n in bad)
    folders = ["run.10", "run.9"]
    assert [p.name for p in natural_sorted(map(Path, folders))] == folders[::-1]
    stamps = ["1.250.png", "1.500.png", "10.125.png"]
    assert [p.name for p in natural_sorted(Path(n) for n in stamps)] == stamps


def test_gaps_in_the_numbering_of_images_are_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    (root / "épisode 1/top/0003.png").rename(root / "épisode 1/top/0008.png")
    source = source_of(root)
    assert "épisode 1/top: 3.png: absent between numbered files" in source.notes[0]
    (root / "épisode 0/top/0002.png").unlink()
    with pytest.raises(
        BadSample, match=r"4 images for 5 rows \(2\.png: absent between numbered files\)"
    ):
        source_of(root)[0]


DAMAGED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "half an image": (
        lambda p: (p / "top/0001.png").write_bytes((p / "top/0001.png").read_bytes()[:60]),
        r"0001\.png: row 1: unreadable image",
    ),
    "pointer": (
        lambda p: (p / "top/0001.png").write_text("version https://git-lfs.github.com/spec/v1\n"),
        r"0001\.png: row 1: a Git LFS pointer.*git lfs pull",
    ),
    "table": (
        lambda p: (p / "steps.csv").write_text("version https://git-lfs.github.com/spec/v1\n"),
        r"steps\.csv: a Git LFS pointer",
    ),
    "no camera": (lambda p: (p / "top").rename(p / "other"), r"top: 0 images for"),
    "latin-1": (lambda p: (p / "steps.csv").write_bytes(b"action.x\n\xe9"), r"save it as UTF-8"),
}


@pytest.mark.parametrize("episode", [0, 2])
@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_episode_is_skipped_wherever_it_is(
    kind: str, episode: int, tmp_path: Path
) -> None:
    spoil, message = DAMAGED[kind]
    root = write_folder(tmp_path / "d")
    spoil(root / f"épisode {episode}")
    with pytest.raises((DataError, BadSample), match=message):
        source_of(root, cameras={"top": "top"})[episode]
    settings = ["source.mapping.size=32", "source.mapping.cameras={top: top}"]
    manifest = pack_from(root, tmp_path / "out", settings, skip_bad=True, max_bad=0.5)
    assert manifest.samples == 2 and manifest.quarantined == 1


@pytest.mark.parametrize("meta", ["{", "[]", '{"fps": "ten"}', '{"fps": -1}', '{"fps": true}'])
def test_a_malformed_description_is_one_line(meta: str, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    (root / "meta.json").write_text(meta)
    with pytest.raises(DataError, match=r"meta\.json: "):
        source_of(root)


def test_two_tables_and_hidden_files(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d", (3, 3))
    (root / "épisode 0/top/._0001.png").write_bytes(b"resource fork")
    (root / "épisode 0/top/.DS_Store").write_bytes(b"x")
    Image.fromarray(image_of(0, 0)).convert("L").save(root / "épisode 0/top/0000.png")
    assert len(source_of(root)[0].images["top"]) == 3
    (root / "épisode 1/steps.json").write_text("[]")
    with pytest.raises(DataError, match=r"épisode 1: has steps\.csv and steps\.json"):
        source_of(root)


def test_an_episode_folder_without_table_is_named_and_left_out_on_request(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    (root / "épisode 1/steps.csv").unlink()
    with pytest.raises(
        DataError, match=r"1 of 3 episode folders have no table: épisode 1; .*--skip-m"
    ):
        source_of(root)
    assert len(RobotSource(str(root), Mapping(size=32), skip_missing=True)) == 2
