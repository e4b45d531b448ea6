"""Runs that continue: equal logs, more steps, changed configurations and changed data."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from training_runs import curves, scalars

from vla.config import check
from vla.errors import ConfigError, DataError, TrainingInterrupted
from vla.policies.checkpoint import load_policy
from vla.training.checkpoint_io import LAST, PREVIOUS, checkpoint_step
from vla.training.divergence import DivergenceGuard
from vla.training.early import in_new_folder
from vla.training.resume import Checkpointer
from vla.training.run import RunConfig, train
from vla.training.run_folder import read_summary

# Lightning and tensorboard emit warnings about their own code.
pytestmark = pytest.mark.filterwarnings("default")


def run(configuration: dict[str, Any], progress: bool = False) -> Path:
    """Train in this process; returns the folder of the run."""
    return train(check(configuration, RunConfig, ""), progress).parent


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The next run gets a signal in this step."""
    original = Checkpointer.on_train_batch_end

    def end(self: Checkpointer, trainer: Any, *arguments: Any) -> None:
        self.stop_requested = trainer.global_step == step
        original(self, trainer, *arguments)

    monkeypatch.setattr(Checkpointer, "on_train_batch_end", end)


@pytest.mark.parametrize("lost", [False, True], ids=["last", "previous"])
@pytest.mark.slow
def test_logs_and_counters_equal_those_of_an_uninterrupted_run(
    tiny_run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    """The stop is between two logs, so the means since the last log have to continue."""
    options = {"steps": 9, "log_every": 3, "val_every": 4, "save_every": 2, "patience": 5}
    tiny_run["train"] = tiny_run["train"] | options
    whole = run(tiny_run | {"output_dir": str(tmp_path / "a" / "run")})
    tiny_run["output_dir"] = str(tmp_path / "b" / "run")
    with monkeypatch.context() as patch:
        stop_after(patch, 7)
        with pytest.raises(TrainingInterrupted, match="stopped at step 7 of 9; the same command"):
            run(tiny_run)
    stopped = Path(tiny_run["output_dir"])
    assert [checkpoint_step(stopped / name) for name in (LAST, PREVIOUS)] == [7, 6]
    if lost:
        (stopped / LAST).write_bytes(b"")
    assert run(tiny_run) == stopped
    assert curves(stopped) == curves(whole)
    assert scalars(stopped) == scalars(whole)
    assert scalars(whole)["images"] == [(3, 12.0), (6, 24.0), (9, 36.0)]
    assert read_summary(stopped) == read_summary(whole)
    assert read_summary(whole)["best_validation"]["step"] in (4, 8)


def test_a_signal_in_the_last_step_reaches_the_caller(
    tiny_run: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise a ladder starts its next run."""
    tiny_run["train"] = tiny_run["train"] | {"steps": 1, "val_every": 1}
    original = Checkpointer._step_done

    def interrupted(self: Checkpointer, trainer: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        original(self, trainer)

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "_step_done", interrupted)
        with pytest.raises(TrainingInterrupted, match=r"after the last step; .* is complete"):
            run(tiny_run)
    assert signal.getsignal(signal.SIGINT) is handler
    folder = run(tiny_run, progress=True)
    assert capsys.readouterr().err.strip() == (
        f"{folder / 'policy'}: already finished at step 1; raise train.steps to continue"
    )


def test_ctrl_c_works_after_an_interrupted_run(
    tiny_run: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning ignores the signal while it shuts down."""
    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(Checkpointer, "_step_done", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    monkeypatch.setattr(Checkpointer, "on_train_start", lambda *_: None)
    with pytest.raises(TrainingInterrupted, match="stopped at step 1"):
        run(tiny_run)
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_signal_between_the_two_handlers_is_a_request_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before, register = [signal.getsignal(n) for n in numbers], signal.signal
    saver = Checkpointer(tmp_path / LAST, 1, 1, DivergenceGuard(None))  # type: ignore[arg-type]

    def at_once(number: signal.Signals, handler: Any) -> None:
        register(number, handler)
        if number is signal.SIGINT and handler == saver._request_stop:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr("vla.training.resume.signal.signal", at_once)
        patch.setattr("vla.training.resume.check_free_space", lambda *_: None)
        saver.on_train_start(SimpleNamespace(global_step=0), None)
    assert saver.stop_requested and [signal.getsignal(n) for n in numbers] == before


@pytest.mark.slow
def test_more_steps_continue_a_finished_run(
    tiny_run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_run["optim"] = {"warmup_steps": 2, "schedule": "constant"}
    long = tiny_run | {"train": tiny_run["train"] | {"steps": 9, "save_every": 100}}
    short = tiny_run | {"train": long["train"] | {"steps": 5}}
    whole = run(long | {"output_dir": str(tmp_path / "whole")})
    folder = run(short)
    before = (folder / "policy/model.safetensors").read_bytes()
    run(short, progress=True)
    assert "already finished at step 5" in capsys.readouterr().err
    assert (folder / "policy/model.safetensors").read_bytes() == before
    run(long, progress=True)
    assert "train.steps: 5 in the run, 9 now; the run continues" in capsys.readouterr().err
    ours, theirs = (load_policy(f / "policy", "cpu").state_dict() for f in (folder, whole))
    assert all((ours[name] == weight).all() for name, weight in theirs.items())
    assert read_summary(folder)["steps"] == 9
    with pytest.raises(ConfigError, match=r"train\.steps: 9 in the run, 5 now"):
        run(short)
    assert checkpoint_step(folder / LAST) == 9


def test_a_fresh_run_gets_a_new_folder(
    tiny_run: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The processes that Lightning starts get the same folder."""
    arguments = ["vla", "train", "x.yaml", "--fresh", f"output_dir={tmp_path / 'run'}"]
    for name in ("run", "run-2", "run-3"):
        monkeypatch.setattr("sys.argv", arguments)
        found = in_new_folder(check(tiny_run, RunConfig, "")).output_dir
        assert found == str(tmp_path / name) and Path(found).is_dir()
        assert sys.argv == [*arguments[:3], arguments[4], f"output_dir={found}"]
        assert f"to continue it, give output_dir={found}" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="--fresh: not with several processes"):
        in_new_folder(check(tiny_run, RunConfig, ""))


def test_changed_keys_are_named_with_both_values_and_a_new_schedule_is_stated(
    tiny_run: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_run["train"] = tiny_run["train"] | {"steps": 1}
    folder = run(tiny_run)
    changed = {
        "train": tiny_run["train"] | {"batch_size": 16},
        "policy": tiny_run["policy"] | {"head": {"name": "token", "plan_tokens": 64}},
    }
    message = (
        r"policy\.head\.plan_tokens: unset in the run, 64 now; "
        r"train\.batch_size: 4 in the run, 16 now"
    )
    with pytest.raises(ConfigError, match=message):
        run(tiny_run | changed)
    run(tiny_run | {"train": tiny_run["train"] | {"steps": 2}}, progress=True)
    message = "the cosine schedule now ends at step 2: the learning rate at step 1 is"
    assert message in capsys.readouterr().err
    for content in ("", "{", "[1]", "train: 3"):
        (folder / "config.yaml").write_text(content)
        with pytest.raises(ConfigError, match=r"config\.yaml: this folder holds a run"):
            run(tiny_run)


def test_a_start_without_a_checkpoint_does_not_block_another_configuration(
    tiny_run: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its logs are removed, so that they do not mix with those of the new run."""
    first = tiny_run | {"train": tiny_run["train"] | {"save_every": 100, "val_every": 100}}
    with monkeypatch.context() as patch:
        patch.setattr(
            Checkpointer, "_step_done", lambda self, trainer: 1 / (trainer.global_step < 3)
        )
        with pytest.raises(ZeroDivisionError):
            run(first)
    folder = Path(tiny_run["output_dir"])
    assert list(folder.glob("csv-*")) and not (folder / LAST).exists()
    tiny_run["train"] = tiny_run["train"] | {"steps": 2, "batch_size": 3}
    assert [row["step"] for row in curves(run(tiny_run))] == ["1", "2"]


def test_data_that_changed_since_the_run_began_are_refused(
    tiny_run: dict[str, Any], tmp_path: Path
) -> None:
    tiny_run["train"] = tiny_run["train"] | {"steps": 1}
    data = dict(tiny_run["data"]["datasets"])
    data["robot"] = str(shutil.copytree(data["robot"], tmp_path / "robot"))
    tiny_run["data"] = tiny_run["data"] | {"datasets": data}
    record = run(tiny_run) / "data.json"
    then = json.loads(record.read_text())
    then["robot"] |= {"fingerprint": "other", "samples": 7}
    record.write_text(json.dumps(then))
    more = tiny_run | {"train": tiny_run["train"] | {"steps": 2}}
    message = r"data set robot has changed since the run began \(7 samples, .*then, 24 samples,"
    with pytest.raises(DataError, match=message):
        run(more)


def test_an_output_folder_that_cannot_be_written_is_named_before_training(
    tiny_run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file/run: cannot be written"):
        run(tiny_run | {"output_dir": str(tmp_path / "file" / "run")})
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(ConfigError, match=r"the disk has 1e-06 GB free, and checkpoints and"):
        run(tiny_run)
    assert not (Path(tiny_run["output_dir"]) / LAST).exists()
