"""Columns of LeRobot's tables: every type of number, unused columns, texts of rows."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot_files import edit_feature, edit_table, tables_of, write_lerobot2, write_lerobot3
from robot_files import LENGTHS, TASKS, action, png

from vla.data.mapping import Mapping
from vla.data.pack import pack_from
from vla.data.robot import RobotSource
from vla.errors import BadSample, DataError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def values(episode: int) -> np.ndarray:
    return np.array([action(episode, t) for t in range(LENGTHS[episode])])


TYPES: dict[str, Callable[[np.ndarray], Any]] = {
    "float64": lambda a: pa.array(a.tolist(), pa.list_(pa.float64())),
    "fixed size list": lambda a: pa.FixedSizeListArray.from_arrays(pa.array(a.ravel()), 3),
    "large list": lambda a: pa.array(a.tolist(), pa.large_list(pa.float32())),
    "half": lambda a: pa.array(a.astype(np.float16).tolist(), pa.list_(pa.float16())),
    "text": lambda a: pa.array([[f"{v:.6f}" for v in r] for r in a], pa.list_(pa.string())),
    "decimal": lambda a: pa.array(
        [[Decimal(str(round(v, 4))) for v in r] for r in a], pa.list_(pa.decimal128(9, 4))
    ),
    "matrix": lambda a: pa.array([[r.tolist()] for r in a], pa.list_(pa.list_(pa.float64()))),
    "chunked": lambda a: pa.chunked_array(
        [pa.array(a[:2].tolist()), pa.array(a[2:].tolist(), pa.list_(pa.float64()))]
    ),
}


@pytest.mark.parametrize("kind", TYPES)
def test_numbers_of_every_type_are_read(kind: str, tmp_path: Path) -> None:
    root = write_lerobot2(tmp_path / "d")
    for e, table in enumerate(tables_of(root)):
        edit_table(table, action=TYPES[kind](values(e)))
    source = RobotSource(str(root), Mapping(size=32))
    assert all(np.allclose(source[e].actions, values(e), atol=2e-3) for e in range(3))


@pytest.mark.parametrize("kind", ["int64", "bool", "uint8", "float32", "string"])
def test_single_numbers_of_every_type_are_read(kind: str, tmp_path: Path) -> None:
    root = write_lerobot2(tmp_path / "d")
    edit_feature(root, "action", {"shape": [1], "names": None, "dtype": "float32"})
    for e, table in enumerate(tables_of(root)):
        cells = values(e)[:, 2]
        made = (
            pa.array([f"{v:g}" for v in cells]) if kind == "string" else pa.array(cells).cast(kind)
        )
        edit_table(table, action=made)
    source = RobotSource(str(root), Mapping(size=32))
    assert np.array_equal(source[1].actions, values(1)[:, 2:])


BAD_CELLS: dict[str, tuple[Callable[[list[Any]], Any], str]] = {
    "null row": (lambda a: [*a[:3], None, *a[4:]], r"row 3: empty cell"),
    "null in a row": (lambda a: [*a[:3], [1.0, None, 2.0], *a[4:]], r"row 3: empty cell"),
    "short row": (lambda a: [*a[:4], [1.0], *a[5:]], r"row 4: 1 numbers a row, .* declares 3"),
    "no number": (
        lambda a: [[str(v) for v in r] for r in a[:-1]] + [["1", "0,5", "2"]],
        r"row 7: '0,5' is no number",
    ),
}


@pytest.mark.parametrize("kind", BAD_CELLS)
def test_bad_cells_of_a_used_column_name_file_episode_and_row(kind: str, tmp_path: Path) -> None:
    change, message = BAD_CELLS[kind]
    root = write_lerobot2(tmp_path / "d")
    table = tables_of(root)[1]
    edit_table(table, action=change(values(1).tolist()))
    source = RobotSource(str(root), Mapping(size=32))
    assert np.allclose(source[0].actions, values(0))
    with pytest.raises(BadSample, match=rf"episode_000001\.parquet: episode 1: action, {message}"):
        source[1]
    settings = ["source.mapping.size=32"]
    manifest = pack_from(root, tmp_path / "out", settings, skip_bad=True, max_bad=0.5)
    assert manifest.samples == 2 and manifest.quarantined == 1


UNUSED: dict[str, tuple[dict[str, Any], Callable[[int], Any]]] = {
    "binary": ({"dtype": "binary"}, lambda n: [b"\x80\x04N."] * n),
    "list of structs": ({"dtype": "language"}, lambda n: [[{"role": "user"}]] * n),
    "struct": ({"dtype": "float32", "shape": [2]}, lambda n: [{"x": 1.0, "y": None}] * n),
    "nulls": ({"dtype": "float32", "shape": [1]}, lambda n: [1.0] * (n - 1) + [None]),
    "only nulls": ({"dtype": "float32", "shape": [1]}, lambda n: pa.nulls(n)),
    "ragged": ({"dtype": "float32", "shape": [3]}, lambda n: [[0.0] * (t % 3) for t in range(n)]),
    "names": (
        {"dtype": "float32", "shape": [3], "names": ["a", "b"]},
        lambda n: [[0.0] * 3] * n,
    ),
    "time": ({"dtype": "timestamp"}, lambda n: pa.array([0] * n, pa.timestamp("us"))),
    "absent": ({"dtype": "float32", "shape": [3]}, lambda n: None),
    "map": ({}, lambda n: pa.array([[("a", 1)]] * n, pa.map_(pa.string(), pa.int64()))),
    "image without images": ({"dtype": "image", "shape": [8, 8, 3]}, lambda n: None),
}


@pytest.mark.parametrize("write", [write_lerobot2, write_lerobot3], ids=["v2", "v3"])
@pytest.mark.parametrize("kind", UNUSED)
def test_unused_columns_of_any_kind_do_not_matter(
    kind: str, write: Callable[[Path], Path], tmp_path: Path
) -> None:
    feature, cells = UNUSED[kind]
    root = write(tmp_path / "d")
    edit_feature(root, "observation.extra", feature)
    tables = tables_of(root)
    for table, n in zip(tables, LENGTHS if len(tables) > 1 else [sum(LENGTHS)], strict=True):
        edit_table(table, **{"observation.extra": cells(n)})
    source = RobotSource(str(root), Mapping(size=32))
    assert all(np.allclose(source[e].actions, values(e)) for e in range(3))
    assert sorted(source[2].images) == ["top", "wrist"]
    noted = any("observation.extra" in note for note in source.notes)
    assert noted == (kind not in ("nulls", "ragged"))
    if kind != "image without images":
        with pytest.raises((DataError, BadSample), match=r"observation\.extra"):
            RobotSource(str(root), Mapping(size=32, state=["observation.extra"]))[2]


@pytest.mark.parametrize("write", [write_lerobot2, write_lerobot3], ids=["v2", "v3"])
def test_the_task_of_every_row_is_kept(write: Callable[[Path], Path], tmp_path: Path) -> None:
    root = write(tmp_path / "d")
    tables = tables_of(root)
    for table, n in zip(tables, LENGTHS if len(tables) > 1 else [sum(LENGTHS)], strict=True):
        edit_table(table, task_index=[0] * 2 + [1] * (n - 2))
    source = RobotSource(str(root), Mapping(size=32))
    assert source[0].instructions == [TASKS[0]] * 2 + [TASKS[1]] * 3
    assert source[0].instruction == TASKS[0]
    if len(tables) == 1:
        assert source[1].instruction == TASKS[1] and source[1].instructions == []
    kept = RobotSource(str(root), Mapping(size=32, rate_hz=5))[0]
    assert kept.instructions == [TASKS[0], TASKS[1], TASKS[1]]


def test_several_tasks_of_an_episode_without_a_list_are_one_line(tmp_path: Path) -> None:
    root = write_lerobot2(tmp_path / "d")
    (root / "meta/tasks.jsonl").unlink()
    rows = (root / "meta/episodes.jsonl").read_text().replace(f'["{TASKS[0]}"]', '["a", "b"]')
    (root / "meta/episodes.jsonl").write_text(rows)
    with pytest.raises(DataError, match="episode 0 has task 0, which the task list lacks"):
        RobotSource(str(root), Mapping(size=32))[0]


def test_text_columns_and_subtasks_are_texts_of_rows(tmp_path: Path) -> None:
    root = write_lerobot2(tmp_path / "d")
    edit_feature(root, "subtask_index", {"dtype": "int64", "shape": [1]})
    for table, n in zip(tables_of(root), LENGTHS, strict=True):
        edit_table(table, subtask_index=[t % 2 for t in range(n)], note=[f"n{t}" for t in range(n)])
    made = pa.table({"subtask_index": [0, 1], "__index_level_0__": ["reach", "grasp"]})
    pq.write_table(made, root / "meta/subtasks.parquet")
    source = RobotSource(str(root), Mapping(size=32, plan="note", instruction="{task}: {subtask}"))
    episode = source[2]
    assert episode.plans == ["n0", "n1", "n2"]
    assert episode.instructions == [f"{TASKS[0]}: {s}" for s in ("reach", "grasp", "reach")]
    with pytest.raises(DataError, match=r"mapping\.instruction.*no text field 'place'"):
        RobotSource(str(root), Mapping(size=32, instruction="{place}"))[0]
    grouped = RobotSource(str(root), Mapping(size=32, group="subtask_index"))
    assert grouped[0].group == "0"


def spoil_image(root: Path, cell: Any) -> None:
    edit_feature(root, "observation.images.side", {"dtype": "image", "shape": [32, 32, 3]})
    for e, (table, n) in enumerate(zip(tables_of(root), LENGTHS, strict=True)):
        image = {"bytes": png(np.eye(32, dtype=np.uint8) * 200), "path": "x.png"}
        cells = [image if (e, t) != (1, 5) else cell for t in range(n)]
        edit_table(table, **{"observation.images.side": cells})


IMAGES: list[tuple[Any, str]] = [
    ({"bytes": b"\x89PNG\r\n\x1a\nnothing", "path": None}, "row 5: unreadable image"),
    ({"bytes": png(np.eye(32, dtype=np.uint8))[:60], "path": None}, "row 5: unreadable image"),
    ({"bytes": None, "path": "/home/somebody/frame_000005.png"}, "row 5: the image /home/somebody"),
    ({"bytes": None, "path": "images/5.png"}, r"row 5: image images/5\.png: .*No such file"),
    ({"bytes": None, "path": None}, "row 5: no image"),
    (None, "row 5: no image"),
]


@pytest.mark.parametrize("case", range(len(IMAGES)))
def test_a_damaged_image_in_a_table_is_a_bad_episode(case: int, tmp_path: Path) -> None:
    cell, message = IMAGES[case]
    root = write_lerobot2(tmp_path / "d")
    spoil_image(root, cell)
    source = RobotSource(str(root), Mapping(size=32))
    assert "side" in source[0].images and "side" in source[2].images
    with pytest.raises(BadSample, match=f"episode 1: observation.images.side, {message}"):
        source[1]


def test_images_beside_the_table_are_found(tmp_path: Path) -> None:
    root = write_lerobot2(tmp_path / "d")
    (root / "images").mkdir()
    (root / "images/5.png").write_bytes(png(np.eye(32, dtype=np.uint8)))
    spoil_image(root, {"bytes": None, "path": "images/5.png"})
    assert len(RobotSource(str(root), Mapping(size=32))[1].images["side"]) == 8


@pytest.mark.parametrize("episode", [0, 1, 2])
def test_a_damaged_table_is_a_bad_episode_wherever_it_is(episode: int, tmp_path: Path) -> None:
    root = write_lerobot2(tmp_path / "d")
    table = tables_of(root)[episode]
    table.write_bytes(table.read_bytes()[:-30])
    source = RobotSource(str(root), Mapping(size=32))
    with pytest.raises(DataError, match=f"episode_00000{episode}.parquet: damaged or unfinished"):
        source[episode]
    settings = ["source.mapping.size=32"]
    manifest = pack_from(root, tmp_path / "out", settings, skip_bad=True, max_bad=0.5)
    assert manifest.samples == 2 and manifest.quarantined == 1


def test_plain_bytes_are_images_and_columns_are_judged_over_several_tables(tmp_path: Path) -> None:
    root = write_lerobot2(tmp_path / "d")
    edit_feature(root, "observation.images.side", {"dtype": "image", "shape": [32, 32, 3]})
    image = png(np.eye(32, dtype=np.uint8) * 200)
    for table, n in list(zip(tables_of(root), LENGTHS, strict=True))[1:]:
        edit_table(table, **{"observation.images.side": [image] * n})
    edit_table(tables_of(root)[0], action=None)
    source = RobotSource(str(root), Mapping(size=32))
    assert sorted(source[1].images) == ["side", "top", "wrist"]
    assert np.allclose(source[2].actions, values(2))
    with pytest.raises(DataError, match=r"episode_000000\.parquet: no column"):
        source[0]
