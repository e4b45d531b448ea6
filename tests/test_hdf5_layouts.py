"""HDF5 in the layouts of DROID and RoboTwin: videos, metadata and instructions beside the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hdf5_files import (
    STEPS,
    actions,
    frames,
    shots,
    source,
    write_demos,
    write_droid,
    write_robotwin,
)

from vla.data.readers import open_reader
from vla.errors import BadSample, DataError


def test_droid_has_videos_and_metadata_beside_its_file(tmp_path: Path) -> None:
    for e in range(2):
        write_droid(tmp_path / f"run {e}", e)
    found = source(tmp_path)
    assert found.action_space is not None and found.action_space.dim == 7
    assert len(found.state_names) == 7
    for e in range(2):
        assert found[e].instruction == f"task {e}"
        assert np.allclose(found[e].actions[:, :6], actions(e, 6))
        for n, camera in enumerate(("wrist", "ext1")):
            assert frames(found, e, camera) == [(n + 1, t) for t in range(STEPS)]
    assert any("not taken: observation/robot_state/joint_positions" in n for n in found.notes)


def test_a_video_with_other_frames_than_rows_is_a_bad_episode(tmp_path: Path) -> None:
    write_droid(tmp_path / "run 0", 0)
    write_droid(tmp_path / "run 1", 1, frames=STEPS - 2)
    found = source(tmp_path)
    with pytest.raises(DataError, match=rf"11\.mp4: 4 frames for {STEPS} rows of .*trajectory\.h5"):
        found[1]


def test_robotwin_has_instructions_beside_its_files(tmp_path: Path) -> None:
    for e in (0, 1, 10, 2):
        write_robotwin(tmp_path, e)
    found = source(tmp_path)
    assert found.action_space is not None and found.action_space.dim == 14
    assert [found[n].instruction for n in range(4)] == [f"grab bottle {e}" for e in (0, 1, 2, 10)]
    assert frames(found, 1, "rgb") == [(1, t) for t in range(STEPS)]
    assert list(found.reader.default_state) == ["endpose/left_endpose", "endpose/left_gripper"]
    assert any(n.startswith("instruction: the first") for n in found.notes)


def test_gaps_in_the_numbers_of_files_are_said(tmp_path: Path) -> None:
    for n in (0, 1, 3, 4):
        write_demos(tmp_path / f"run_{n}.hdf5", {"obs/cam": shots}, (n,))
    assert any("run_2: absent between numbered files" in n for n in open_reader(tmp_path).notes)


def test_files_of_dates_have_no_gaps(tmp_path: Path) -> None:
    for name in ("20240105", "20240317", "20240319"):
        write_demos(tmp_path / f"{name}.hdf5", {"obs/cam": shots}, (0,))
    assert open_reader(tmp_path).notes == []


def test_a_dead_link_is_a_bad_episode(tmp_path: Path) -> None:
    for n in (0, 2):
        write_demos(tmp_path / f"run_{n}.hdf5", {"obs/cam": shots}, (n,))
    (tmp_path / "run_1.hdf5").symlink_to(tmp_path / "nowhere")
    found = source(tmp_path)
    assert len(found) == 3 and found[2].key == "run_2/demo_2"
    with pytest.raises(BadSample, match=r"run_1\.hdf5: not a complete HDF5 file"):
        found[1]
