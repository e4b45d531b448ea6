"""CALVIN: npz files per row, annotations, parts, missing and damaged files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rlds_files import seen, shot

from vla.data.images import decode_image
from vla.data.mapping import Mapping
from vla.data.pack import pack_from
from vla.data.readers import open_reader
from vla.data.robot import RobotSource
from vla.errors import DataError

SPANS = [[8, 12], [13, 19]]
PACK = ["source.mapping.fps=30", "source.mapping.size=24", "source.mapping.instruction=slide it"]


def write(folder: Path, spans: Any = SPANS, first: int = 0) -> Path:
    """Rows as CALVIN has them; the image encodes the span and the row in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for e, (a, b) in enumerate(spans):
        for t, row in enumerate(range(a, b + 1)):
            np.savez(
                folder / f"episode_{row:07d}.npz",
                actions=np.full(7, 100.0 + row),
                rel_actions=np.full(7, first + row / 100),
                robot_obs=np.full(15, float(row)),
                scene_obs=np.zeros(24),
                rgb_static=shot(first + e, t),
                rgb_gripper=shot(first + e, t, (20, 20, 3)),
                rgb_tactile=np.zeros((20, 20, 6), np.uint8),
                depth_static=np.full((24, 32), 3.5, np.float32),
            )
    np.save(folder / "ep_start_end_ids.npy", np.array(spans))
    return folder


def source(folder: Path, **options: Any) -> RobotSource:
    return RobotSource(str(folder), Mapping(size=24, fps=30, **options))


def test_rows_states_and_cameras(tmp_path: Path) -> None:
    found = source(write(tmp_path), instruction="slide it")
    assert len(found) == 2 and found[1].instruction == "slide it"
    assert set(found[0].images) == {"rgb_static", "rgb_gripper"}
    for camera in found[0].images:
        images = [seen(decode_image(f, "")) for f in found[1].images[camera]]
        assert images == [(1, t) for t in range(7)]
    assert np.allclose(found[0].actions[:, 0], np.arange(8, 13) / 100)
    states = found[0].state
    assert states is not None and states.shape == (5, 15)
    assert any("rel_actions" in n and "not taken: actions" in n for n in found.notes)
    assert found.reader.fields["depth_static"].depth
    with pytest.raises(DataError, match="rgb_tactile is neither an image nor a vector"):
        source(tmp_path, cameras={"touch": "rgb_tactile"})


ANNOTATED = {"language": ["turn on the led", "open the drawer"], "indx": [[9, 11], [14, 18]]}
NESTED = {"language": {"ann": ANNOTATED["language"]}, "info": {"indx": ANNOTATED["indx"]}}


@pytest.mark.parametrize("kind", ["json", "nested json", "npz"])
def test_annotated_parts_are_the_episodes(kind: str, tmp_path: Path) -> None:
    own = write(tmp_path) / "lang_annotations"
    own.mkdir()
    if kind == "npz":
        np.savez(own / "auto_lang_ann.npz", **{k: np.array(v) for k, v in ANNOTATED.items()})
    else:
        about = NESTED if kind == "nested json" else ANNOTATED
        (own / "auto_lang_ann.json").write_text(json.dumps(about))
    found = source(tmp_path)
    assert [found[e].instruction for e in range(2)] == ANNOTATED["language"]
    assert np.allclose(found[0].actions[:, 0], [0.09, 0.10, 0.11])


def test_pickled_annotations_are_not_read_and_the_remedy_works(tmp_path: Path) -> None:
    own = write(tmp_path) / "lang_annotations"
    own.mkdir()
    info = {"indx": [tuple(p) for p in ANNOTATED["indx"]]}
    pickled = {"language": {"ann": ANNOTATED["language"]}, "info": info}
    np.save(own / "auto_lang_ann.npy", np.array(pickled), allow_pickle=True)
    found = source(tmp_path, instruction="slide it")
    assert len(found) == 2
    (note,) = [n for n in found.notes if "auto_lang_ann.npy" in n]
    program = note.partition('python -c "')[2].removesuffix('"')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(own)
        exec(compile(program, "note", "exec"), {})
    assert source(tmp_path)[1].instruction == "open the drawer"


def test_training_and_validation_are_splits(tmp_path: Path) -> None:
    write(tmp_path / "training")
    write(tmp_path / "validation", [[3, 6]], first=2)
    reader = open_reader(tmp_path)
    assert [reader[e].split for e in range(3)] == ["train", "train", "val"]
    assert open_reader(tmp_path / "training")[0].split == ""


def test_absent_rows_are_refused_or_left_out(tmp_path: Path) -> None:
    (write(tmp_path) / "episode_0000010.npz").unlink()
    with pytest.raises(DataError, match=r"1 of the 2 episodes lack files of rows: 0; .*--skip"):
        source(tmp_path)
    assert len(RobotSource(str(tmp_path), Mapping(fps=30), skip_missing=True)) == 1


def test_a_damaged_row_costs_only_its_episode(tmp_path: Path) -> None:
    file = write(tmp_path) / "episode_0000008.npz"  # the first row of the first episode
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(DataError, match=r"episode_0000008\.npz: damaged npz file"):
        pack_from(tmp_path, tmp_path / "a", PACK)
    packed = pack_from(tmp_path, tmp_path / "b", PACK, skip_bad=True, max_bad=0.5)
    assert packed.samples == 1 and packed.quarantined == 1


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        (np.array([[5, 3]]), "entry 0 goes from row 5 to 3"),
        (np.array([1, 2, 3]), r"expected first and last rows, found int64 of shape \(3,\)"),
        (np.array([[0.5, 2.0]]), "expected first and last rows, found float64"),
        (np.array([{}], dtype=object), "unreadable"),
        (np.zeros((0, 2), int), "lists no episodes"),
    ],
)
def test_a_bad_list_of_episodes_is_one_message(
    spans: np.ndarray, message: str, tmp_path: Path
) -> None:
    write(tmp_path)
    np.save(tmp_path / "ep_start_end_ids.npy", spans, allow_pickle=True)
    with pytest.raises(DataError, match=rf"ep_start_end_ids\.npy.*{message}"):
        open_reader(tmp_path)
