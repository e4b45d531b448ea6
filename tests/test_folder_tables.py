"""The plain folder: tables as spreadsheets and programs write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from robot_files import LENGTHS, NAMES, TASKS, action, write_folder

from vla.data.mapping import Mapping
from vla.data.robot import RobotSource
from vla.errors import BadSample, DataError


def source_of(root: Path, **options: Any) -> RobotSource:
    return RobotSource(str(root), Mapping(size=32, image_format="ppm", **options))


def check_actions(root: Path) -> None:
    source = source_of(root)
    assert source.action_space is not None and list(source.action_space.names) == NAMES
    for e, n in enumerate(LENGTHS):
        assert np.allclose(source[e].actions, [action(e, t) for t in range(n)])


def edit_tables(
    root: Path,
    change: Callable[[list[list[str]]], Any],
    encoding: str = "utf-8",
    separator: str = ",",
    end: str = "\n",
) -> None:
    for file in root.glob("*/steps.csv"):
        rows = [line.split(",") for line in file.read_text("utf-8").splitlines()]
        rows = change(rows) or rows
        file.write_bytes(end.join(separator.join(r) for r in rows).encode(encoding))


def cell(row: int, column: int, text: str) -> Callable[[list[list[str]]], None]:
    def change(rows: list[list[str]]) -> None:
        if len(rows) > row:
            rows[row][column] = text

    return change


def each(column: int, change: Callable[[str], str]) -> Callable[[list[list[str]]], None]:
    def apply(rows: list[list[str]]) -> None:
        for row in rows[1:]:
            row[column] = change(row[column])

    return apply


GOOD: dict[str, Callable[[Path], Any]] = {
    "byte-order mark": lambda r: edit_tables(r, lambda x: None, "utf-8-sig"),
    "utf-16": lambda r: edit_tables(r, lambda x: None, "utf-16"),
    "semicolons": lambda r: edit_tables(r, lambda x: None, separator=";"),
    "tabs": lambda r: edit_tables(r, lambda x: None, separator="\t"),
    "windows": lambda r: edit_tables(r, lambda x: None, end="\r\n"),
    "blank lines": lambda r: edit_tables(r, lambda x: [x[0], [""], *x[1:], [""], [""]]),
    "booleans": lambda r: edit_tables(r, each(2, lambda c: str(float(c) > 0.5))),
    "lower-case booleans": lambda r: edit_tables(r, each(2, lambda c: str(float(c) > 0.5).lower())),
    "quotes": lambda r: edit_tables(r, lambda x: [[f'"{c}"' for c in row] for row in x]),
    "spaces": lambda r: edit_tables(r, lambda x: [[f" {c} " for c in row] for row in x]),
    "exponents": lambda r: edit_tables(r, each(0, lambda c: f"{float(c):.6E}")),
    "index column": lambda r: edit_tables(
        r, lambda x: [["", *x[0]], *([str(n), *row] for n, row in enumerate(x[1:]))]
    ),
    "pandas index": lambda r: edit_tables(
        r, lambda x: [["Unnamed: 0", *x[0]], *([str(n), *row] for n, row in enumerate(x[1:]))]
    ),
    "other order in one episode": lambda r: (r / "épisode 1/steps.csv").write_text(
        "\n".join(
            ",".join([row.split(",")[k] for k in (2, 0, 1, 5, 3, 4, 6)])
            for row in (r / "épisode 1/steps.csv").read_text("utf-8").splitlines()
        ),
        "utf-8",
    ),
    "a column with few blanks that is not used": lambda r: edit_tables(
        r,
        lambda x: [[*x[0], "force.x"], *([*row, "1" if n else ""] for n, row in enumerate(x[1:]))],
    ),
}


@pytest.mark.parametrize("kind", GOOD)
def test_tables_of_spreadsheets_keep_every_column(kind: str, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    GOOD[kind](root)
    check_actions(root)


BAD: dict[str, tuple[Callable[[list[list[str]]], Any], str, str]] = {
    "blank first": (cell(1, 2, ""), ",", r"column 'action\.grip', row 0 \(line 2\): empty cell"),
    "blank later": (cell(3, 0, " "), ",", r"column 'action\.x', row 2 \(line 4\): empty cell"),
    "all blank": (each(1, lambda c: ""), ",", r"column 'action\.y', row 0 .*: empty cell"),
    "text": (cell(2, 1, "open"), ",", r"column 'action\.y', row 1 \(line 3\): 'open' is no number"),
    "all text": (each(2, lambda c: "open"), ",", r"column 'action\.grip', row 0 .*'open' is no nu"),
    "yes and no": (each(2, lambda c: "yes"), ",", r"column 'action\.grip', row 0 .*'yes'"),
    "decimal comma": (
        each(1, lambda c: f"{float(c):.2f}".replace(".", ",")),
        ";",
        r"column 'action\.y', row 0 .*'0,00' has a decimal comma; write 0\.00",
    ),
    "thousands": (cell(1, 0, "1_000"), ",", r"'1_000' is no number"),
    "short row": (
        lambda x: [*x[:2], x[2][:3], *x[3:]],
        ",",
        r"line 3 has 3 cells, the header has 7",
    ),
    "long row": (lambda x: [*x[:2], [*x[2], "9"], *x[3:]], ",", r"line 3 has 8 cells"),
    "same name": (cell(0, 1, "action.x"), ",", r"two columns are called 'action\.x'"),
    "no name": (cell(0, 2, ""), ",", r"column 3 has no name"),
    "two separators": (
        lambda x: [["action.x", "b;c"], ["1", "3;4"]],
        ",",
        r"the separator is ambiguous",
    ),
    "no rows": (lambda x: x[:1], ",", r"no rows"),
    "open quote": (cell(1, 0, '"1'), ",", r"unreadable table"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_cells_are_one_line_with_column_and_row(kind: str, tmp_path: Path) -> None:
    change, separator, message = BAD[kind]
    root = write_folder(tmp_path / "d")
    edit_tables(root, change, separator=separator)
    with pytest.raises((DataError, BadSample), match=rf"steps\.csv: .*{message}"):
        source_of(root)[1]


def test_a_column_that_changes_its_type_is_judged_over_all_episodes(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    first = root / "épisode 0/steps.csv"
    rows = [line.split(",") for line in first.read_text("utf-8").splitlines()]
    first.write_text("\n".join(",".join([*r[:2], *r[3:]]) for r in rows), "utf-8")
    source = source_of(root, action=["state"])
    assert source.action_space is not None and source.action_space.dim == 3
    with pytest.raises(DataError, match=r"épisode 1/steps\.csv: field 'action' has 3: x, y, grip"):
        source_of(root)[1]


JSON: list[tuple[Any, str]] = [
    ({"action": [1]}, "expected a list of rows"),
    ([1, 2], "expected a list of rows"),
    ([], "no rows"),
    ([{"action": [1, 2, 3]}, {"action": [1, 2]}], r"column 'action\.2', row 1: empty cell"),
    ([{"action": [1, 2, 3]}, {"action": [1, 2, None]}], r"column 'action\.2', row 1: empty cell"),
    ([{"action": [1, 2, 3]}, {"action": [1, "b", 3]}], r"column 'action\.1', row 1: 'b' is no nu"),
]


@pytest.mark.parametrize("case", range(len(JSON)))
def test_json_tables_without_meaning_are_one_line(case: int, tmp_path: Path) -> None:
    found, message = JSON[case]
    root = write_folder(tmp_path / "d", (2, 2), table="json")
    for file in root.glob("*/steps.json"):
        file.write_text(json.dumps(found))
    with pytest.raises((DataError, BadSample), match=message):
        source_of(root)[0]


def test_nested_json_and_booleans_are_numbers(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d", (2, 2), table="json")
    rows = [{"action": {"x": 1, "pose": [2, 3], "open": True}, "late": 1}, {"action": {"x": 4}}]
    rows[1]["action"] |= {"pose": [5, 6], "open": False}  # type: ignore[operator]
    for file in root.glob("*/steps.json"):
        file.write_text(json.dumps(rows), "utf-8-sig")
    source = source_of(root, state=[])
    assert source.action_space is not None
    assert source.action_space.names == ("x", "pose.0", "pose.1", "open")
    assert source[0].actions.tolist() == [[1, 2, 3, 1], [4, 5, 6, 0]]


def test_a_column_of_instructions_is_used_without_a_file(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d", (3, 3))
    edit_tables(
        root, lambda x: [[*x[0], "task"], *([*r, TASKS[n > 0]] for n, r in enumerate(x[1:]))]
    )
    for file in root.glob("*/instruction.txt"):
        file.unlink()
    assert source_of(root)[0].instructions == [TASKS[0], TASKS[1], TASKS[1]]


def test_npz_arrays_that_are_not_used_may_be_of_any_kind(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d", (4, 4), table="npz")
    for file in root.glob("*/steps.npz"):
        with np.load(file) as loaded:
            arrays = dict(loaded)
        extra = {"info": np.array([{"a": 1}], dtype=object), "rate": np.array(9.0)}
        np.savez(file, **arrays, **extra, note=np.array(list("abcd")), late=np.zeros((3, 2)))
    source = source_of(root, plan="note")
    assert len(source[0].actions) == 4 and source[1].plans == list("abcd")
    for name, message in (("info", "pickled objects"), ("late", "'late' has 3 rows of 4")):
        with pytest.raises(BadSample, match=message):
            source_of(root, state=[name])[0]
