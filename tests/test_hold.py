"""What another process writes into is left alone; one that died has let go."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vla.config import check
from vla.data.pack import pack
from vla.data.sources import TabletopSource
from vla.hold import Busy, held
from vla.sim.scene import SceneConfig
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
