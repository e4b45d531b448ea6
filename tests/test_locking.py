"""Folders that another process has locked, and jobs that processes share."""

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

from vla.benchmarks.tabletop.scene import SceneConfig
from vla.benchmarks.tabletop.sources import TabletopSource
from vla.config import check
from vla.data.pack import pack
from vla.errors import FolderLocked
from vla.experiments.study.config import StudyConfig, policy_of
from vla.experiments.study.measure import replace_rows, results_lock
from vla.experiments.study.run import run_study
from vla.experiments.study.summaries import SUCCESS, success_row
from vla.training.run import RunConfig, train
from vla.utils.csv_tables import read_table
from vla.utils.locking import exclusive_lock

LOCK = """
import sys
from pathlib import Path
from vla.utils.locking import exclusive_lock
with exclusive_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextmanager
def locked_by_another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the lock of ``folder`` until the block ends."""
    folder.mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", LOCK, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout and process.stdout.readline() == "locked\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vla.utils.locking.WAIT", 0.1)


@pytest.mark.filterwarnings("default")
def test_a_second_training_in_the_same_folder_is_refused_and_writes_nothing(
    tiny_run: dict[str, Any],
) -> None:
    run = Path(tiny_run["output_dir"])
    with locked_by_another_process(run) as other:
        message = rf"{run}: locked by another process \(pid {other.pid}\); wait for it or choose"
        with pytest.raises(FolderLocked, match=message):
            train(check(tiny_run, RunConfig, ""), progress=False)
        assert [p.name for p in run.iterdir()] == [".lock"]


def test_a_second_pack_is_refused_until_the_first_process_ends(
    tmp_path: Path,
) -> None:
    source = TabletopSource(SceneConfig(concepts=8, cards=(0, 0), skills=("pick",)), 4, size=32)
    with (
        locked_by_another_process(tmp_path / "out"),
        pytest.raises(FolderLocked, match=r"locked by another process \(pid \d+\)"),
    ):
        pack(source, tmp_path / "out", progress=False)
    assert pack(source, tmp_path / "out", progress=False).samples == 4
    assert not (tmp_path / "out/.parts").exists()


def test_the_lock_is_released_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), exclusive_lock(tmp_path):
        raise RuntimeError
    with exclusive_lock(tmp_path):
        pass


def test_processes_with_the_same_study_share_its_recipes(
    tiny_run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(tiny_run))
    names = ["web", "tuned", "other", "third"]
    recipes: dict[str, Any] = {n: {"config": "x.yaml"} for n in names}
    recipes["tuned"]["init_from"] = "web"
    study = {
        "recipes": recipes,
        "benchmark": {"name": "tabletop"},
        "tasks": ["seen", "symbol"],
        "out": str(tmp_path / "out"),
        "runs": str(tmp_path / "runs"),
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    made: list[str] = []
    path = tmp_path / "out/success.csv"

    def make(config: StudyConfig, name: str) -> Path:
        assert name != "tuned" or policy_of(config, "web").is_dir()
        assert config.recipes[name].change == ["train.threads=1"]
        made.append(name)
        time.sleep(0.05)
        policy_of(config, name).mkdir(parents=True)
        return policy_of(config, name)

    def evaluate(config: StudyConfig, name: str, saved: Path) -> None:
        for task in config.tasks:
            row = success_row(name, task, [{"seed": 0, "success": 1, "steps": 5, "failed": 0}])
            with results_lock(config):
                replace_rows(path, [row], SUCCESS, ("recipe", "task"))

    monkeypatch.setattr("vla.experiments.study.execute.train_recipe", make)
    monkeypatch.setattr("vla.experiments.study.execute.run_rollouts", evaluate)
    monkeypatch.setattr("vla.experiments.study.run.write_report", lambda config: None)
    monkeypatch.setattr("vla.utils.locking.RETRY", 0.01)

    def run(_: int) -> None:
        run_study(str(tmp_path / "study.yaml"), ["change=[train.threads=1]"], [], False)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, range(3)))
    assert sorted(made) == sorted(names)  # each recipe is trained once
    rows = [(r["recipe"], r["task"]) for r in read_table(path, SUCCESS)]
    assert sorted(rows) == sorted((n, c) for n in names for c in study["tasks"])
