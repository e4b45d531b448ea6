"""A training run as a job: it continues after a preemption."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from training_runs import losses

from vla.config import check
from vla.errors import ConfigError
from vla.policies.checkpoint import load_policy
from vla.training.config import RunConfig
from vla.training.run_folder import write_start
from vla.training.slurm import submit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loggers": ["no_such"]}, "no_such"),
        ({"callbacks": [{"class_path": "no.Such"}]}, "no.Such"),
        ({"optim": {"lr": 0.5}}, "another configuration"),
    ],
)
def test_a_wrong_run_is_not_submitted(
    tiny_run: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    folder = Path(str(tiny_run["output_dir"]))
    (folder / "policy").mkdir(parents=True)
    write_start(folder, check(tiny_run, RunConfig, ""))
    with pytest.raises(ConfigError, match=message):
        submit(check(tiny_run | change, RunConfig, ""), "local")
    assert not (folder / ".slurm").exists()


@pytest.mark.slow
def test_a_preempted_job_is_queued_again_and_continues(tiny_run: dict[str, Any]) -> None:
    tiny_run["train"] = tiny_run["train"] | {"steps": 300, "save_every": 1000, "val_every": 1000}
    tiny_run["slurm"] = {"minutes": 5, "cpus": 1}
    folder = Path(str(tiny_run["output_dir"]))
    job = submit(check(tiny_run, RunConfig, ""), "local")
    end = time.monotonic() + 200
    while len(losses(folder)) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    parent = job._process.pid  # submitit's controller, whose child is the task
    (task,) = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    os.kill(int(task), signal.SIGUSR2)
    assert job.result() == str(folder / "policy"), job.stderr()
    assert load_policy(folder / "policy") and sorted(losses(folder)) == list(range(1, 301))
    assert len(list(folder.glob("csv-*"))) == 2  # two starts
    assert "from step" in (folder / "train.log").read_text()
