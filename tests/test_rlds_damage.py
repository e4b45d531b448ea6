"""RLDS: recorded splits, order of files, damaged records, files and descriptions."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from rlds_files import FEATURES, write_features, write_records
from rlds_files import rlds_episode as episode
from rlds_files import write_rlds_steps as write

from vla.data.mapping import Mapping
from vla.data.pack import pack_from
from vla.data.readers import open_reader
from vla.data.robot import RobotSource
from vla.errors import BadSample, DataError


def source(root: Path, **options: Any) -> RobotSource:
    return RobotSource(str(root), Mapping(size=24, fps=5, **options))


@pytest.mark.parametrize(
    ("second", "split"), [("val", "val"), ("validation", "val"), ("test", "val")]
)
def test_recorded_splits_are_kept(second: str, split: str, tmp_path: Path) -> None:
    root = write(tmp_path / "d", [{}, {}])
    assert open_reader(root)[0].split == ""  # one file group alone is no split
    write_records(root / f"toy-{second}.tfrecord-00000-of-00001", [episode(2)])
    reader = open_reader(root)
    assert sorted(reader[e].split for e in range(3)) == ["train", "train", split]
    assert reader.missing == []


def test_shards_are_in_natural_order(tmp_path: Path) -> None:
    root = tmp_path / "d"
    write_features(root, FEATURES)
    for n in (10, 9, 2, 0):
        write_records(root / f"toy-train.tfrecord-{n}", [episode(n)])
    reader = open_reader(root)
    assert [reader[e].numbers["steps/action"][0, 0] - 0.5 for e in range(4)] == [0, 2, 9, 10]


def spoil_second(file: Path, how: str) -> None:
    """Damage the second of three records, or what surrounds it."""
    data = bytearray(file.read_bytes())
    start = 12 + struct.unpack("<Q", data[:8])[0] + 4
    if how == "content":
        data[start + 40] ^= 0xFF
    elif how == "length":
        data[start] ^= 0xFF
    else:
        del data[start + 30 :]
    file.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("how", "left", "message"),
    [
        ("content", [0, 2], r"episode 1 does not match its checksum"),
        ("length", [0], r"damaged at byte \d+; the rest of this file cannot be read"),
        ("truncated", [0], r"truncated after \d+ bytes; the rest of this file"),
    ],
)
def test_a_damaged_record_costs_no_other_file(
    how: str, left: list[int], message: str, tmp_path: Path
) -> None:
    root = write(tmp_path / "d", [{}, {}, {}], file="toy-train.tfrecord-00000-of-00002")
    write_records(root / "toy-train.tfrecord-00001-of-00002", [episode(3), episode(4)])
    spoil_second(root / "toy-train.tfrecord-00000-of-00002", how)
    found = source(root, instruction="wave")
    good, errors = [], []
    for index in range(len(found)):
        try:
            good.append(int(found[index].actions[0, 0]))
        except BadSample as error:
            errors.append(str(error))
    assert good == [*left, 3, 4] and len(errors) == 1
    settings = ["source.mapping.fps=5", "source.mapping.size=24", "source.mapping.instruction=wave"]
    with pytest.raises(BadSample, match=message):
        pack_from(root, tmp_path / "a", settings)
    packed = pack_from(root, tmp_path / "b", settings, skip_bad=True, max_bad=0.5)
    assert packed.samples == len(good) and packed.quarantined == 1


def test_a_damaged_first_file_does_not_prevent_opening(tmp_path: Path) -> None:
    root = write(tmp_path / "d", [{}], file="toy-train.tfrecord-00000-of-00002")
    write_records(root / "toy-train.tfrecord-00001-of-00002", [episode(1)])
    (root / "toy-train.tfrecord-00000-of-00002").write_bytes(b"version https://git-lfs.github.com")
    found = source(root)
    assert len(found) == 2 and found[1].actions[0, 0] == 1.5
    assert any("git lfs pull" in note for note in found.notes)
    with pytest.raises(BadSample, match="git lfs pull"):
        found[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "expected a JSON object"),
        ('{"featuresDict": {"features": {"x": {}}}}', "describes x, not RLDS steps"),
        ('{"featuresDict": null}', "describes nothing, not RLDS steps"),
        (
            '{"featuresDict": {"features": {"steps": {"featuresDict": {"features": {"x": 7}}}}}}',
            "steps/x is 7, not a feature",
        ),
    ],
)
def test_a_bad_description_gives_one_message(content: str, message: str, tmp_path: Path) -> None:
    root = write(tmp_path / "d", [{}])
    (root / "features.json").write_text(content)
    with pytest.raises(DataError, match=rf"features\.json: .*{message}"):
        open_reader(root)
