"""What another process writes into is left alone; one that died has let go."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from vla.config import check
from vla.data.pack import pack
from vla.data.sources import TabletopSource
from vla.hold import Busy, held
from vla.sim.scene import SceneConfig
from vla.study.config import EPISODES, StudyConfig, policy_of
from vla.study.measure import lock_of
from vla.study.run import run_study
from vla.tables import add_rows, read_table
from vla.train import RunConfig, train

HOLD = """
import sys
from pathlib import Path
from vla.hold import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_at_work(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds ``folder`` until the block ends."""
    folder.mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vla.hold.WAIT", 0.1)


@pytest.mark.filterwarnings("default")
def test_a_second_training_in_a_run_folder_is_refused_and_changes_nothing(tiny_run: dict[str, Any]) -> None:
    run = Path(tiny_run["run"])
    with another_at_work(run):
        with pytest.raises(Busy, match=f"{run}: another process is at work here; .*choose another folder"):
            train(check(tiny_run, RunConfig, ""), progress=False)
        assert [p.name for p in run.iterdir()] == [".lock"]


def test_a_second_packing_into_a_folder_is_refused_and_goes_on_once_the_first_died(tmp_path: Path) -> None:
    source = TabletopSource(SceneConfig(concepts=8, cards=(0, 0), skills=("pick",)), 4, size=32)
    with another_at_work(tmp_path / ".parts"), pytest.raises(Busy, match="another process is at work here"):
        pack(source, tmp_path, progress=False)
    assert pack(source, tmp_path, progress=False)["samples"] == 4
    assert not (tmp_path / ".parts").exists()


def test_a_folder_is_let_go_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), held(tmp_path):
        raise RuntimeError
    with held(tmp_path):
        pass


def test_a_study_that_is_started_twice_shares_its_recipes(
    tiny_run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(tiny_run))
    names = ["web", "tuned", "other", "third"]
    recipes: dict[str, Any] = {n: {"config": "x.yaml"} for n in names}
    recipes["tuned"]["after"] = "web"
    study = {"recipes": recipes, "cells": ["seen", "symbol"], "out": str(tmp_path / "out"), "runs": str(tmp_path / "runs")}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    made: list[str] = []
    path = tmp_path / "out/episodes.csv"

    def make(config: StudyConfig, name: str) -> Path:
        assert name != "tuned" or policy_of(config, "web").is_dir()
        assert config.recipes[name].change == ["train.threads=1"]
        made.append(name)
        time.sleep(0.05)
        policy_of(config, name).mkdir(parents=True)
        return policy_of(config, name)

    def drive(config: StudyConfig, name: str, saved: Path) -> bool:
        for cell in config.cells:
            add_rows(path, [dict(zip(EPISODES, (name, cell, 0, 1, 5, 0), strict=True))], lock_of(config), EPISODES)
        return True

    monkeypatch.setattr("vla.study.run.train_recipe", make)
    monkeypatch.setattr("vla.study.run.drive", drive)
    monkeypatch.setattr("vla.study.report.write_report", lambda config: None)
    monkeypatch.setattr("vla.hold.LOOK", 0.01)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: run_study(str(tmp_path / "study.yaml"), ["change=[train.threads=1]"], [], False), range(3)))
    assert sorted(made) == sorted(names)  # each once
    rows = [(r["recipe"], r["cell"]) for r in read_table(path, EPISODES)]
    assert sorted(rows) == sorted((n, c) for n in names for c in ("seen", "symbol"))  # none lost
