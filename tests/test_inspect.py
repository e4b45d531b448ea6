"""``vla inspect``: policies, runs, packed and recorded data in one screen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from robot_files import TASKS, write_folder, write_rlds
from web_files import write_llava

from vla.cli.facts import describe
from vla.cli.inspect import inspect, lines
from vla.data.pack import pack_from
from vla.doctor.report import run_doctor
from vla.errors import DataError

POLICY = REPOSITORY / "experiments" / "tabletop_seen" / "policy"


def text_of(path: Path) -> str:
    found = lines(describe(path))
    assert len(found) <= 40 and max(map(len, found[1:])) <= 80  # the first has the path
    return "\n".join(found)


def test_a_policy() -> None:
    text = text_of(POLICY)
    assert "a saved policy (vla)" in text and "1.5M parameters" in text and "head token" in text
    assert "top" in text and "64 x 64 px" in text and "droll" in text and "rad" in text


def test_a_run_with_losses(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "csv-0000").mkdir(parents=True)
    config = {"data": {"datasets": {"robot": "data/mine"}}, "train": {"steps": 100}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    text = text_of(run)
    assert "not finished" in text and "0 of 100" in text and "none logged yet" in text
    rows = "step,train/loss,val/loss\n20,3.5,\n40,2.5,2.0\n60,1.5,2.25\n"
    (run / "csv-0000" / "metrics.csv").write_text(rows)
    text = text_of(run)
    assert "60 of 100" in text and "2.25 at the end, best 2 (step 40)" in text
    shutil.copytree(POLICY, run / "policy")
    text = text_of(run)
    assert "finished" in text and "gripper" in text and "robot: data/mine" in text


def test_packed_data(tiny_data: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    text = text_of(Path(tiny_data["robot"]))
    assert "packed data (robot episodes)" in text and "24 episodes" in text
    assert "top 32 x 32 px" in text and "gripper" in text and " val" in text
    assert "40 samples" in text_of(Path(tiny_data["web"]))
    inspect(Path(tiny_data["robot"]), as_json=True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["samples"] == 24 and facts["train"] + facts["val"] == 24
    assert {row["name"] for row in facts["actions"]} >= {"dx", "gripper"}


def test_recorded_data_also_without_a_rate(tmp_path: Path) -> None:
    text = text_of(write_folder(tmp_path / "folder"))
    assert "recorded data (folder)" in text and "3 episodes, 16 steps" in text
    assert "32 x 32 px" in text and "3 dimensions at " in text and TASKS[1] in text
    (tmp_path / "folder" / "config.yaml").write_text("recorder: {hz: 10}")  # not that of a run
    assert "recorded data (folder)" in text_of(tmp_path / "folder")
    text = text_of(write_rlds(tmp_path / "rlds"))
    assert "recorded data (rlds)" in text and "an unknown rate" in text
    assert "source.mapping.fps" in text and TASKS[1] in text


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        describe(tmp_path / "x")
    with pytest.raises(DataError, match="not a known robot data set"):
        describe(tmp_path)


def test_images_with_texts(tmp_path: Path) -> None:
    root = write_llava(tmp_path / "llava")
    text = "\n".join(lines(describe(root)))
    assert "images with texts, json" in text and "7 samples" in text
    assert "conversations (column)" in text and "What colour is it?" in text
    pack_from(root, tmp_path / "out", ["source.mapping.size=16"])
    text = "\n".join(lines(describe(tmp_path / "out")))
    assert "What colour is it?" in text and "6 train, 1 val" in text and "instruction" not in text
    with pytest.raises(DataError, match="images with texts; vla doctor examines robot data"):
        run_doctor(root, [], None, False, None)
