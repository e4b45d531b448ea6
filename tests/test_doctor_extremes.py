"""The doctor at the extremes of what it looks for: findings, never exceptions or warnings."""

from __future__ import annotations

import json
import shlex
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot_files import write_lerobot2
from memory_data import MemorySource, make_episode
from robot_files import write_folder, write_rlds, write_robomimic

from vla.data.leave_out import without
from vla.data.mapping import Mapping
from vla.data.pack import pack, pack_from
from vla.data.readers.folder import FolderReader
from vla.data.robot import RobotSource
from vla.doctor.report import run_doctor
from vla.utils.io import write_json

NAN, INF = float("nan"), float("inf")


def write_rows(root: Path, lengths: tuple[int, ...], change: Any = None) -> Path:
    """Episodes without images; ``change(e, action, state)`` edits the arrays in place."""
    rng = np.random.default_rng(0)
    for e, n in enumerate(lengths):
        action, state = rng.normal(size=(n, 3)), rng.normal(size=(n, 2))
        if change is not None:
            change(e, action, state)
        (root / f"e{e}").mkdir(parents=True)
        np.savez(root / f"e{e}/steps.npz", action=action, state=state)
        (root / f"e{e}/instruction.txt").write_text(("push", "pull")[e % 2])
    write_json(root / "meta.json", {"fps": 10})
    return root


def doctor(path: Path, capsys: Any, page: Path | None = None) -> tuple[int, dict[str, Any]]:
    """Exit code and report; a warning of numpy or another library is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        code = run_doctor(path, [], None, True, page)
    printed = capsys.readouterr()
    assert printed.err == ""
    return code, json.loads(printed.out)


def found(report: dict[str, Any]) -> dict[str, str]:
    return {f["check"]: f["severity"] for f in report["findings"]}


def put(value: float, *where: Any) -> Any:
    """A change of the action at ``where``: episodes, rows and dims."""
    episodes, rows, dims = where

    def change(e: int, action: np.ndarray, state: np.ndarray) -> None:
        if episodes is None or e in episodes:
            action[rows, dims] = value

    return change


def still(e: int, action: np.ndarray, state: np.ndarray) -> None:
    action[:], state[:] = 0.25, -1.0


def state_nan(e: int, action: np.ndarray, state: np.ndarray) -> None:
    state[:, 1] = NAN


ALL = slice(None)
EXTREMES: dict[str, tuple[tuple[int, ...], Any, dict[str, str]]] = {
    "a dim of NaN": (
        (30, 40, 20),
        put(NAN, None, ALL, 1),
        {"NaN or infinite values": "error", "dimension without values": "error"},
    ),
    "everything NaN": ((12, 9), put(NAN, None, ALL, ALL), {"dimension without values": "error"}),
    "an episode of NaN": (
        (30, 40, 20),
        put(NAN, [1], ALL, ALL),
        {"NaN or infinite values": "error"},
    ),
    "a dim of the state": ((30, 30), state_nan, {"dimension without values": "error"}),
    "infinite values": ((30, 30), put(-INF, [0], 3, 2), {"NaN or infinite values": "error"}),
    "the largest float": ((150, 150), put(3e38, [0], 3, 2), {"near-constant dimension": "warning"}),
    "beyond float32": ((30, 30), put(1e300, [0], 3, 2), {"NaN or infinite values": "error"}),
    "a huge constant": ((30, 30), put(3e38, None, ALL, 2), {"constant dimension": "warning"}),
    "nothing moves": ((30, 30, 30), still, {"constant dimension": "error"}),
    "one row each": ((1, 1, 1, 1), None, {"episodes of one row": "error"}),
    "one row among others": ((20, 1, 20), None, {"episodes of one row": "warning"}),
    "one row in all": ((1,), None, {"episodes of one row": "error", "single episode": "warning"}),
    "one episode": ((40,), None, {"single episode": "warning"}),
    "two rows": ((2, 2), None, {}),
    "no images": ((20, 20), None, {"left out or assumed": "note"}),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_extremes_are_findings(name: str, tmp_path: Path, capsys: Any) -> None:
    lengths, change, expected = EXTREMES[name]
    root = write_rows(tmp_path / "d", lengths, change)
    code, report = doctor(root, capsys)
    assert expected.items() <= found(report).items()
    severities = set(found(report).values())
    assert code == (2 if "error" in severities else int("warning" in severities))


def test_the_page_of_extreme_data_is_written(tmp_path: Path, capsys: Any) -> None:
    root = write_rows(tmp_path / "d", (30, 30), put(NAN, None, ALL, 1))
    doctor(root, capsys, tmp_path / "page.html")
    assert "no finite value" in (tmp_path / "page.html").read_text()


def test_constant_dimensions_come_with_the_mapping_that_leaves_them_out(
    tmp_path: Path, capsys: Any
) -> None:
    def still(e: int, action: np.ndarray, state: np.ndarray) -> None:
        action[:, 1] = 0.25

    root = write_rows(tmp_path / "d", (30, 30), still)
    code, report = doctor(root, capsys)
    [text] = [f["text"] for f in report["findings"] if f["check"] == "constant dimension"]
    assert code == 1 and "1 of 3 dimensions never change (action_1)" in text
    arguments = shlex.split(text.partition("to leave them out: ")[2])
    assert arguments == ['source.mapping.action=["action[0:1]", "action[2:3]"]']
    manifest = pack_from(root, tmp_path / "p", arguments)
    assert manifest.action_space is not None
    assert manifest.action_space.names == ("action_0", "action_2")
    pack_from(root, tmp_path / "all", [])
    _, report = doctor(tmp_path / "all", capsys)
    [text] = [f["text"] for f in report["findings"] if f["check"] == "constant dimension"]
    assert f"`vla doctor {root}` prints the mapping" in text


def test_options_of_dimensions_that_are_left_out_go_too(tmp_path: Path) -> None:
    root = write_rows(tmp_path / "d", (4,))
    options = Mapping(names=["x", "y", "z"], binary={"y": 0.5, "z": 0.5}, invert=["y"])
    arguments = shlex.split(without(RobotSource(str(root), options).mapping, ["y"]))
    assert arguments == [
        'source.mapping.action=["action[0:1]", "action[2:3]"]',
        'source.mapping.names=["x", "z"]',
        'source.mapping.binary={"z": 0.5}',
        "source.mapping.invert=[]",
    ]
    assert without(RobotSource(str(root), options).mapping, ["x", "y", "z"]) == ""


def test_dimensions_without_values_are_named(tmp_path: Path, capsys: Any) -> None:
    root = write_rows(tmp_path / "d", (30, 30), put(NAN, None, ALL, 1))
    _, report = doctor(root, capsys)
    named = [f["affected"] for f in report["findings"] if f["check"] == "dimension without values"]
    assert named == [["action_1"]]
    assert [row["dim"] for row in report["dims"]] == ["action_0", "action_1", "action_2"]


@pytest.mark.parametrize("format_", ["folder", "lerobot", "hdf5", "rlds"])
def test_a_damaged_episode_is_a_finding_and_the_others_are_judged(
    format_: str, tmp_path: Path, capsys: Any
) -> None:
    lengths = (9, 10, 11, 12)
    root = tmp_path / "d"
    if format_ == "folder":
        write_folder(root, lengths)
        (root / "épisode 2/steps.csv").write_bytes(b"\xff\x00garbage")
    elif format_ == "lerobot":
        write_lerobot2(root, lengths=lengths)
        next(root.glob("data/**/episode_000002.parquet")).write_bytes(b"PAR1 nothing PAR1")
    elif format_ == "hdf5":
        import h5py

        with h5py.File(write_robomimic(root / "d.hdf5", lengths), "r+") as file:
            del file["data/demo_2/actions"]
        root = root / "d.hdf5"
    else:
        file = next(write_rlds(root, lengths).glob("*.tfrecord*"))
        data = bytearray(file.read_bytes())
        data[2 * len(data) // 3] ^= 255
        file.write_bytes(data)
    rate = ["source.mapping.fps=10"]
    code = run_doctor(root, rate if format_ in ("hdf5", "rlds") else [], None, True, None)
    report = json.loads(capsys.readouterr().out)
    assert code == 2 and 1 <= report["episodes"] < 4
    assert found(report)["unreadable episode"] == "error"


def test_no_readable_episode_is_a_finding(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: FolderReader, index: int) -> None:
        raise KeyError("broken library")

    monkeypatch.setattr(FolderReader, "__getitem__", fail)
    root = write_rows(tmp_path / "d", (20, 20))
    code, report = doctor(root, capsys, tmp_path / "page.html")
    assert code == 2 and found(report)["empty data set"] == "error" and report["episodes"] == 0
    text = next(f["text"] for f in report["findings"] if f["check"] == "unreadable episode")
    assert "KeyError" in text and "episode 0" in text
    assert "empty data set" in (tmp_path / "page.html").read_text()


def test_row_labels_are_reported(tmp_path: Path, capsys: Any) -> None:
    changing, partly, whole = (make_episode(i, 4) for i in range(3))
    changing.instructions = ["open", "open", "close", "close"]
    partly.instructions = ["", "open", "open", ""]
    pack(MemorySource([changing, partly, whole]), tmp_path / "p", progress=False)
    code, report = doctor(tmp_path / "p", capsys)
    texts = {f["check"]: f["text"] for f in report["findings"]}
    assert "1 of 3 episodes change" in texts["changing instructions"]
    assert "2 rows of 1 episode have no instruction" in texts["rows without instruction"]
    assert code >= 1 and report["instructions"] == 3
    assert {t["task"]: t["train"] for t in report["tasks"]} == {
        "open": 2,
        "close": 1,
        "do thing 2": 1,
    }


def test_the_split_is_checked(tmp_path: Path, capsys: Any) -> None:
    episodes = [make_episode(i % 3, 4 + i) for i in range(9)]
    for i, episode in enumerate(episodes):
        episode.key, episode.split = f"e{i}", "val" if i % 3 == 1 else "train"
    pack(MemorySource(episodes), tmp_path / "lost", progress=False)
    code, report = doctor(tmp_path / "lost", capsys)
    lost = [f for f in report["findings"] if f["check"] == "task without training episodes"]
    assert code == 2 and "'do thing 1'" in lost[0]["text"]
    assert {"task": "do thing 1", "train": 0, "val": 3} in report["tasks"]
    for episode in episodes:
        episode.split = ""
    pack(MemorySource(episodes), tmp_path / "drawn", val_fraction=0.3, progress=False)
    assert not [c for c in found(doctor(tmp_path / "drawn", capsys)[1]) if "split" in c]
    pack(MemorySource(episodes), tmp_path / "none", val_fraction=0.0, progress=False)
    assert found(doctor(tmp_path / "none", capsys)[1])["no validation episodes"] == "warning"


def test_wrong_statistics_in_the_manifest_are_found(tmp_path: Path, capsys: Any) -> None:
    pack(MemorySource([make_episode(i, 6 + i) for i in range(6)]), tmp_path / "p", progress=False)
    assert "wrong statistics" not in found(doctor(tmp_path / "p", capsys)[1])
    from vla.data.manifest import load_manifest

    manifest = load_manifest(tmp_path / "p")
    manifest.statistics["actions"]["max"][1] *= 2
    manifest.save(tmp_path / "p")
    _, report = doctor(tmp_path / "p", capsys)
    wrong = [f for f in report["findings"] if f["check"] == "wrong statistics"]
    assert [f["affected"] for f in wrong] == [["b"]]
