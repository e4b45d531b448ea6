"""HDF5: layouts of several projects, kinds of images, states, splits, damaged files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hdf5_files import STEPS, actions, frames, shots, source, write_demos
from rlds_files import encoded, shot
from robot_files import write_robomimic

from vla.data.pack import pack_from
from vla.data.readers import open_reader
from vla.errors import BadSample, DataError

PACK = ["source.mapping.fps=20", "source.mapping.size=24", "source.mapping.instruction=wave"]


def test_libero_has_its_state(tmp_path: Path) -> None:
    widths = {"ee_states": 6, "ee_pos": 3, "joint_states": 7, "gripper_states": 2}
    columns: dict[str, Any] = {f"obs/{n}": actions(0, w) for n, w in widths.items()}
    columns |= {"states": actions(0, 30), "obs/agentview_rgb": shots, "obs/eye_in_hand_rgb": shots}
    found = source(write_demos(tmp_path / "a_demo.hdf5", columns))
    assert len(found.state_names) == 15 and found.state_names[0] == "ee_states_0"
    assert list(found[0].images) == ["agentview_rgb", "eye_in_hand_rgb"]
    (note,) = [n for n in found.notes if n.startswith("state")]
    assert "obs/ee_states, obs/joint_states, obs/gripper_states; not taken: obs/ee_pos" in note


def test_robomimic_without_images(tmp_path: Path) -> None:
    columns = {"obs/robot0_eef_pos": actions(0, 3), "obs/object": actions(0, 10)}
    reader = open_reader(write_demos(tmp_path / "low_dim.hdf5", columns))
    assert not [n for n, f in reader.fields.items() if f.kind == "image"]
    assert list(reader.default_state) == ["obs/robot0_eef_pos", "obs/object"]


def variable(values: list[bytes]) -> np.ndarray:
    cells = np.empty(len(values), object)
    for n, value in enumerate(values):
        cells[n] = np.frombuffer(value, np.uint8)
    return cells


def write_images(root: Path, kind: str) -> None:
    """A column ``cam`` of images, in one of several kinds."""
    codes = [encoded(s, "JPEG" if "jpeg" in kind else "PNG") for s in shots(0)]
    width = max(map(len, codes))
    arrays = {
        "channels first": shots(0).transpose(0, 3, 1, 2),
        "grey": shots(0)[..., 0],
        "grey with an axis": shots(0)[..., :1],
        "alpha": np.concatenate([shots(0), np.full((STEPS, 24, 32, 1), 9, np.uint8)], 3),
        "float to 1": (shots(0) / 255).astype(np.float32),
        "float to 255": shots(0).astype(np.float32),
        "padded jpeg": np.array([np.frombuffer(c.ljust(width, b"\0"), np.uint8) for c in codes]),
        "fixed jpeg": np.array(codes, dtype=f"S{width}"),
        "opaque png": np.array([np.void(c.ljust(width, b"\0")) for c in codes]),
    }
    with h5py.File(root, "w") as file:
        file["action"] = actions(0)
        if kind.startswith("variable"):
            column = file.create_dataset("cam", (STEPS,), h5py.vlen_dtype(np.uint8))
            column[:] = variable(codes)
        else:
            file["cam"] = arrays[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "channels first",
        "grey",
        "grey with an axis",
        "alpha",
        "float to 1",
        "float to 255",
        "padded jpeg",
        "fixed jpeg",
        "opaque png",
        "variable jpeg",
        "variable png",
    ],
)
def test_images_of_every_kind(kind: str, tmp_path: Path) -> None:
    write_images(tmp_path / "episode_0.hdf5", kind)
    assert frames(source(tmp_path), 0, "cam") == [(0, t) for t in range(STEPS)]


def test_depth_is_no_default_camera(tmp_path: Path) -> None:
    deep = np.tile(np.linspace(400, 1200, 32).astype(np.uint16), (STEPS, 24, 1))
    columns = {"obs/cam": shots, "obs/cam_depth": deep, "obs/far": deep[..., None] / 1000}
    found = source(write_demos(tmp_path / "d.hdf5", columns))
    assert list(found[0].images) == ["cam"]
    assert {n for n, f in found.reader.fields.items() if f.depth} == {"obs/cam_depth", "obs/far"}


def test_odd_columns_are_left_out(tmp_path: Path) -> None:
    compound = np.zeros(STEPS, dtype=[("a", "f4"), ("b", "i4")])
    columns = {"obs/cam": shots, "obs/pair": compound, "obs/single": 3.0, "obs/short": [1.0]}
    columns |= {"obs/empty": np.zeros((STEPS, 0)), "obs/points": np.zeros((STEPS, 2, 2, 2))}
    found = source(write_demos(tmp_path / "d.hdf5", columns))
    assert len(found[1].actions) == STEPS
    note = next(n for n in found.notes if n.startswith("left out"))
    assert all(f"obs/{n}" in note for n in ("pair", "empty", "points"))


def test_demonstrations_and_files_are_in_natural_order(tmp_path: Path) -> None:
    write_demos(tmp_path / "part_10.hdf5", {"obs/cam": shots}, (0,))
    write_demos(tmp_path / "part_9.hdf5", {"obs/cam": shots}, (2, 10, 1))
    reader = open_reader(tmp_path)
    assert [reader[e].numbers["actions"][0, 0] for e in range(4)] == [1, 2, 10, 0]


def test_recorded_splits_of_robomimic_are_kept(tmp_path: Path) -> None:
    file = write_demos(tmp_path / "d.hdf5", {"obs/cam": shots}, (0, 1, 2))
    with h5py.File(file, "a") as root:
        root["mask/train"] = np.array([b"demo_0", b"demo_2"])
        root["mask/valid"] = np.array([b"demo_1"])
    reader = open_reader(file)
    assert [reader[e].split for e in range(3)] == ["train", "val", "train"]


def test_texts_per_row_are_instructions(tmp_path: Path) -> None:
    said = np.array([b"reach"] * 2 + [b"grasp"] * 4)
    found = source(write_demos(tmp_path / "d.hdf5", {"obs/cam": shots, "language": said}))
    assert found[0].instructions == [s.decode() for s in said]


def test_a_damaged_first_file_is_one_bad_episode(tmp_path: Path) -> None:
    for n in (0, 1, 2):
        write_demos(tmp_path / f"{n}.hdf5", {"obs/cam": shots}, (n,))
    whole = (tmp_path / "0.hdf5").read_bytes()
    (tmp_path / "0.hdf5").write_bytes(whole[: len(whole) // 2])
    found = source(tmp_path)
    assert len(found) == 3 and any("0.hdf5: not a complete" in n for n in found.notes)
    with pytest.raises(BadSample, match=r"0\.hdf5: not a complete HDF5 file"):
        pack_from(tmp_path, tmp_path / "a", PACK)
    assert pack_from(tmp_path, tmp_path / "b", PACK, skip_bad=True, max_bad=0.5).samples == 2


def test_damage_matters_only_in_used_columns(tmp_path: Path) -> None:
    columns = {"obs/cam": shots, "obs/extra": lambda e: np.zeros((STEPS - e, 2))}
    found = source(write_demos(tmp_path / "d.hdf5", columns))
    assert len(found[1].actions) == STEPS
    named = source(tmp_path / "d.hdf5", state=["obs/extra"])
    with pytest.raises(DataError, match=r"demo_1/obs/extra: shape \(5, 2\) for 6 rows"):
        named[1]


def test_damaged_bytes_inside_a_file_name_file_demonstration_and_row(tmp_path: Path) -> None:
    file = write_robomimic(tmp_path / "d.hdf5")
    with h5py.File(file, "a") as root:
        place = root["data/demo_1"]
        del place["obs/agentview_image"]
        codes = [encoded(shot(1, t), "JPEG") for t in range(8)]
        codes[5] = codes[5][:40]
        width = max(map(len, codes))
        place["obs/agentview_image"] = np.array(codes, dtype=f"S{width}")
    found = source(file)
    with pytest.raises(BadSample, match=r"d\.hdf5: data/demo_1/obs/agentview_image, row 5: unread"):
        found[1]
    assert len(found[2].actions) == 3


def test_groups_beside_the_demonstrations_are_no_episodes(tmp_path: Path) -> None:
    file = write_demos(tmp_path / "d.hdf5", {"obs/cam": shots})
    with h5py.File(file, "a") as root:
        root["data/total"] = 3
        root.create_group("data/about")["camera"] = [1, 2]
    assert len(open_reader(file)) == 2
    with h5py.File(file, "a") as root:
        del root["data/demo_0/actions"]
    with pytest.raises(DataError, match="data/demo_0: no actions"):
        open_reader(file)[0]
