"""Runs that are killed while they write a file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from training_runs import curves, scalars

from vla.config import check
from vla.errors import ConfigError
from vla.policies.checkpoint import load_policy
from vla.training.checkpoint_io import LAST, PREVIOUS
from vla.training.curves import read_curves
from vla.training.extensions import make_loggers
from vla.training.run import RunConfig, train
from vla.training.run_folder import read_summary

# Lightning and tensorboard emit warnings about their own code.
pytestmark = pytest.mark.filterwarnings("default")

OTHER_DISK = Path("/dev/shm")


@pytest.mark.slow
def test_a_run_that_is_killed_in_ten_saves_equals_an_uninterrupted_one(
    tiny_run: dict[str, Any], tmp_path: Path
) -> None:
    """The folder of temporary files is on another file system than the run."""
    if not OTHER_DISK.is_dir() or OTHER_DISK.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip(f"needs {OTHER_DISK} as another file system")
    steps = {"steps": 32, "log_every": 5, "val_every": 8, "patience": 5}
    paths, folders = [], []
    for name in ("whole", "killed"):
        folders.append(tmp_path / name / "run")
        paths.append(tmp_path / f"{name}.yaml")
        run = tiny_run | {"output_dir": str(folders[-1]), "train": tiny_run["train"] | steps}
        paths[-1].write_text(yaml.safe_dump(run))
    command = [sys.executable, str(Path(__file__).with_name("killed_saves.py")), *map(str, paths)]
    environment = os.environ | {"TMPDIR": str(OTHER_DISK)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    kills = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(kills) == 10 and {k["signal"] for k in kills} == {signal.SIGKILL}, kills
    reached = [k["step"] for k in kills]
    assert reached == sorted(reached) and 8 < reached[-1] < 32, reached
    assert all(k["size"] != 0 for k in kills), kills
    whole, killed = folders
    assert curves(killed) == curves(whole)
    assert scalars(killed) == scalars(whole)
    assert read_summary(killed) == read_summary(whole)
    ours, theirs = (load_policy(f / "policy", "cpu").state_dict() for f in (killed, whole))
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_a_kill_between_policy_and_summary_leaves_a_run_that_can_be_finished(
    tiny_run: dict[str, Any],
) -> None:
    tiny_run["train"] = tiny_run["train"] | {"steps": 1, "val_every": 1}
    folder = train(check(tiny_run, RunConfig, ""), progress=False).parent
    files = ("summary.json", "curves.csv", "policy/model.safetensors")
    before = {name: (folder / name).read_bytes() for name in files}
    for name in files[:2]:
        (folder / name).unlink()
    train(check(tiny_run, RunConfig, ""), progress=False)
    assert {name: (folder / name).read_bytes() for name in files} == before
    for name in (LAST, PREVIOUS):
        (folder / name).unlink(missing_ok=True)
    more = tiny_run | {"train": tiny_run["train"] | {"steps": 2}}
    with pytest.raises(ConfigError, match=r"no checkpoint \(last\.ckpt\) from which .*--fresh"):
        train(check(more, RunConfig, ""), progress=False)


def test_a_kill_while_the_log_gets_a_column_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (logger,) = make_loggers([], tmp_path, 0)
    logger.log_metrics({"loss": 1.0}, 1)
    logger.save()
    before = read_curves(tmp_path)
    logger.log_metrics({"val/loss": 2.0}, 1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pathlib.Path.replace", lambda *_: signal.raise_signal(signal.SIGINT))
        logger.save()
    assert read_curves(tmp_path) == before == {"loss": [(1, 1.0)]}
    with next(tmp_path.glob("csv*/metrics.csv")).open("a") as file:
        file.write("0.5")
    assert read_curves(tmp_path) == before
