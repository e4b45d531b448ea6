"""Stopped runs continue exactly, also with several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from training_runs import losses, start, stopped_and_continued, stopped_step

from vla.config import check
from vla.errors import ConfigError
from vla.policies.checkpoint import load_policy
from vla.training.provenance import COLUMNS, FILE
from vla.training.resume import RngState
from vla.training.run import RunConfig, train
from vla.utils.csv_tables import read_table

# Lightning and tensorboard emit warnings about their own code.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.mark.slow
@pytest.mark.parametrize(
    "stop", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name
)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stopped_run_continues_with_identical_losses(
    tiny_run: dict[str, Any], tmp_path: Path, stop: signal.Signals, workers: int
) -> None:
    """With loader workers, the whole process group gets the signal."""
    tiny_run["data"] = tiny_run["data"] | {"workers": workers}
    curves = stopped_and_continued(tiny_run, tmp_path, stop, workers > 0)
    (whole, whole_val), (stopped, stopped_val) = curves
    assert len(whole) == 60 and stopped == whole
    validations = 60 if workers and stop is signal.SIGINT else 15
    assert len(whole_val) == validations and stopped_val == whole_val


@pytest.mark.slow
def test_two_processes_train_together_and_stop_at_the_same_step(
    tiny_run: dict[str, Any], tmp_path: Path
) -> None:
    config, run = tmp_path / "two.yaml", Path(str(tiny_run["output_dir"]))
    tiny_run["train"] = tiny_run["train"] | {"steps": 30, "save_every": 1000}
    tiny_run["trainer"] = {"accelerator": "cpu", "devices": 2}
    config.write_text(yaml.safe_dump(tiny_run))
    script = tmp_path / "two.py"
    script.write_text("from vla.cli import main\n\nif __name__ == '__main__':\n    main()\n")
    command = [sys.executable, str(script), "train", str(config)]
    both = start(command)
    while len(losses(run)) < 2 and both.poll() is None:
        time.sleep(0.02)
    os.killpg(both.pid, signal.SIGINT)
    step = stopped_step(both.communicate(timeout=300)[1], run, 30)
    assert step < 30
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    assert load_policy(run / "policy")
    assert len(losses(run)) == 30
    rows = [(r["step"], r["devices"]) for r in read_table(run / FILE, COLUMNS)]
    assert rows == [("0", "2"), (str(step), "2")]


def test_a_start_that_failed_does_not_block_the_folder(tiny_run: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        train(check(tiny_run | {"init_from": "nowhere"}, RunConfig, ""), progress=False)
    tiny_run["train"] = tiny_run["train"] | {"steps": 1}
    saved = train(check(tiny_run, RunConfig, ""), progress=False)
    with pytest.raises(ConfigError, match="holds a run with another configuration"):
        train(check(tiny_run | {"init_from": str(saved)}, RunConfig, ""), progress=False)


def test_random_states_are_restored_with_another_number_of_gpus() -> None:
    gpu_states = [torch.zeros(16, dtype=torch.uint8)] * (torch.cuda.device_count() + 1)
    state = RngState().state_dict() | {"cuda": gpu_states}
    restored = RngState()
    restored.load_state_dict(state)
    expected = torch.rand(3)
    restored.on_train_start(None, None)
    assert torch.equal(torch.rand(3), expected)
