"""Zarr replay buffers, written by the package zarr: versions, images, episode ends, damage."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from rlds_files import seen, shot

from vla.data.images import decode_image
from vla.data.mapping import Mapping
from vla.data.pack import pack_from
from vla.data.readers import open_reader
from vla.data.robot import RobotSource
from vla.errors import BadSample, DataError

LENGTHS = (4, 7, 5)
ENDS = np.cumsum(LENGTHS)
TOTAL = int(ENDS[-1])
PACK = ["source.mapping.fps=10", "source.mapping.size=24", "source.mapping.instruction=push it"]


def shots(shape: tuple[int, ...] = (24, 32, 3)) -> np.ndarray:
    return np.array([shot(e, t, shape) for e, n in enumerate(LENGTHS) for t in range(n)])


def rows(dims: int) -> np.ndarray:
    return np.arange(1.0, TOTAL * dims + 1).reshape(TOTAL, dims).astype(np.float32)


def write(path: Path, version: int = 2, chunk: int = 3, **arrays: Any) -> Path:
    """A replay buffer with img, action and state; ``arrays`` adds or replaces."""
    columns = {"img": shots(), "action": rows(2), "state": rows(5)} | arrays
    ends = columns.pop("episode_ends", ENDS)
    store: Any = zarr.storage.ZipStore(path, mode="w") if path.suffix == ".zip" else str(path)
    root = zarr.open_group(store, mode="w", zarr_format=version)
    for name, values in columns.items():
        chunks = (min(chunk, len(values)), *values.shape[1:])
        root.create_array(f"data/{name}", data=np.asarray(values), chunks=chunks)
    root.create_array("meta/episode_ends", data=np.asarray(ends))
    if path.suffix == ".zip":
        store.close()
    return path


def source(path: Path, **options: Any) -> RobotSource:
    return RobotSource(str(path), Mapping(size=24, fps=10, instruction="push it", **options))


def frames(source: RobotSource, index: int, camera: str = "img") -> list[tuple[int, int]]:
    return [seen(decode_image(f, "")) for f in source[index].images[camera]]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("name", ["a.zarr", "a.zarr.zip"])
@pytest.mark.filterwarnings("ignore:Duplicate name")  # zarr rewrites metadata in zip files
def test_folders_and_zip_files_of_both_versions(version: int, name: str, tmp_path: Path) -> None:
    found = source(write(tmp_path / name, version))
    assert len(found) == len(LENGTHS)
    for e, n in enumerate(LENGTHS):
        assert found[e].instruction == "push it"
        assert np.array_equal(found[e].actions, rows(2)[ENDS[e] - n : ENDS[e]])
        assert frames(found, e) == [(e, t) for t in range(n)]
    assert len(source(tmp_path)) == len(LENGTHS)  # the folder around it


@pytest.mark.parametrize("kind", ["float to 255", "float to 1", "channels first", "grey"])
def test_images_of_every_kind(kind: str, tmp_path: Path) -> None:
    values: Any = {
        "float to 255": shots().astype(np.float32),
        "float to 1": (shots() / 255).astype(np.float32),
        "channels first": shots().transpose(0, 3, 1, 2),
        "grey": shots()[..., :1],
    }
    found = source(write(tmp_path / "a.zarr", img=values[kind]))
    assert frames(found, 1) == [(1, t) for t in range(LENGTHS[1])]


def umi(path: Path, **more: Any) -> Path:
    pose = {"eef_pos": 3, "eef_rot_axis_angle": 3, "gripper_width": 1, "demo_start_pose": 6}
    arrays = {f"robot0_{n}": rows(d) for n, d in pose.items()} | {"camera0_rgb": shots()} | more
    write(path, **arrays)
    return path


def test_umi_has_poses_and_the_next_pose_is_the_action(tmp_path: Path) -> None:
    path = umi(tmp_path / "a.zarr")
    for name in ("action", "state", "img"):
        (path / "data" / name).rename(tmp_path / name)
    found = source(path)
    assert list(found[1].images) == ["camera0_rgb"]
    assert found.action_space is not None and found.action_space.dim == 7
    assert list(found.action_space.names) == list(found.state_names)
    states = found[1].state
    assert states is not None and np.array_equal(found[1].actions[:-1], states[1:])
    assert np.array_equal(found[1].actions[-1], states[-1])
    assert any("the action is the pose in the next row" in note for note in found.notes)
    assert "robot0_demo_start_pose" in found.reader.fields


def test_jpeg_xl_images_of_umi(tmp_path: Path) -> None:
    codecs = pytest.importorskip("imagecodecs.numcodecs")
    codecs.register_codecs(verbose=False)
    path = write(tmp_path / "a.zarr")
    root = zarr.open_group(str(path), mode="a")
    array = root.create_array(
        "data/camera0_rgb",
        shape=(TOTAL, 24, 32, 3),
        chunks=(1, 24, 32, 3),
        dtype="uint8",
        compressors=codecs.Jpegxl(level=99),
    )
    array[:] = shots()
    assert frames(source(path), 1, "camera0_rgb") == [(1, t) for t in range(LENGTHS[1])]


def test_jpeg_xl_without_its_library_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.zarr", cam=shots())
    meta = path / "data/cam/.zarray"
    about = json.loads(meta.read_text()) | {"compressor": {"id": "imagecodecs_jpegxl"}}
    meta.write_text(json.dumps(about))
    monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
    monkeypatch.setitem(__import__("sys").modules, "imagecodecs.numcodecs", None)
    assert list(source(path)[0].images) == ["img"]  # the others can be read
    with pytest.raises(DataError, match=r"data/cam: .* imagecodecs; .*pip install imagecodecs"):
        source(path, cameras={"cam": "cam"})


def test_pickled_objects_are_never_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", secret=rows(1))
    meta = path / "data/secret/.zarray"
    about = json.loads(meta.read_text()) | {"dtype": "|O", "filters": [{"id": "pickle"}]}
    meta.write_text(json.dumps(about))
    assert len(source(path)[0].actions) == LENGTHS[0]
    with pytest.raises(DataError, match="pickled objects, which are not read"):
        source(path, state=["secret"])


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ([4, 4, 16], r"episode 1 ends at row 4 and begins at 4; the ends must rise"),
        ([11, 4, 16], r"episode 1 ends at row 4 and begins at 11"),
        ([-1, 16], r"episode 0 ends at row -1 and begins at 0"),
        (np.array([4.5, 16.0]), r"float64 of shape \(2,\); expected row numbers"),
    ],
)
def test_ends_that_do_not_rise_are_refused(ends: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"meta/episode_ends: {message}"):
        source(write(tmp_path / "a.zarr", episode_ends=ends))


def test_ends_beyond_the_arrays_are_bad_episodes(tmp_path: Path) -> None:
    found = source(write(tmp_path / "a.zarr", episode_ends=[4, 11, 90]))
    assert len(found[1].actions) == 7
    with pytest.raises(BadSample, match="episode 2 ends at row 90, the arrays have 16 rows"):
        found[2]
    assert any("goes to row 90" in note for note in found.notes)


def test_rows_after_the_last_episode_are_said(tmp_path: Path) -> None:
    found = source(write(tmp_path / "a.zarr", episode_ends=[4, 11]))
    assert len(found) == 2
    assert any("rows 11 to 15 are after the last episode" in note for note in found.notes)


def test_arrays_of_other_lengths_matter_only_if_used(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", other=rows(3)[:-1])
    assert len(source(path)[2].actions) == LENGTHS[2]
    with pytest.raises(DataError, match=r"data/other: \(15, 3\) for 16 rows"):
        source(path, state=["other"])


@pytest.mark.parametrize("how", ["damaged", "absent", "pointer"])
@pytest.mark.parametrize("name", ["img", "action"])
def test_a_bad_chunk_costs_only_its_episodes(how: str, name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", chunk=2)
    (chunk,) = (path / "data" / name).glob("4.*")  # rows 8 and 9: episode 1
    if how == "absent":
        chunk.unlink()
    elif how == "pointer":
        chunk.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    else:
        chunk.write_bytes(chunk.read_bytes()[:20])
    found = source(path)
    assert len(found[0].actions) == 4 and len(found[2].actions) == 5
    messages = {"absent": r"4\.0.* absent; download it again", "pointer": "git lfs pull"}
    message = messages.get(how, r"/4\.0.* is cut off")
    with pytest.raises(DataError, match=message):
        found[1]
    packed = pack_from(path, tmp_path / "out", PACK, skip_bad=True, max_bad=0.5)
    assert packed.samples == 2 and packed.quarantined == 1


def test_a_damaged_zip_file_or_pointer_gives_one_message(tmp_path: Path) -> None:
    (tmp_path / "a.zarr.zip").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DataError, match="git lfs pull"):
        open_reader(tmp_path / "a.zarr.zip")
    with zipfile.ZipFile(tmp_path / "b.zarr.zip", "w") as archive:
        archive.writestr("data/img/.zarray", "{")
    with pytest.raises(DataError, match=r"meta/episode_ends: missing"):
        open_reader(tmp_path / "b.zarr.zip")


def test_a_damaged_store_beside_good_ones_is_one_bad_episode(tmp_path: Path) -> None:
    write(tmp_path / "day_10.zarr", action=rows(2) + 100)
    write(tmp_path / "day_9.zarr")
    (tmp_path / "day_2.zarr").mkdir()
    found = source(tmp_path)
    assert len(found) == 7
    assert found[1].actions[0, 0] == 1 and found[4].actions[0, 0] == 101
    with pytest.raises(BadSample, match=r"day_2\.zarr: meta/episode_ends: missing"):
        found[0]


def test_the_rate_must_be_given(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"source\.mapping\.fps"):
        RobotSource(str(write(tmp_path / "a.zarr")), Mapping(instruction="push it"))
