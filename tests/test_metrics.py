"""Means of metrics over several processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROCESS = """
import sys
import torch
from torch import distributed
from vla.utils.metrics import MetricMeans

REPORTS = [
    [("train/a", [1.0, 2.0]), ("train/b", [5.0])],
    [("train/b", [6.0, 7.0]), ("train/c", [9.0]), ("val/a", [0.0])],
]
rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method=sys.argv[2], rank=rank, world_size=2)
means, device = MetricMeans(), torch.device("cpu")
for _ in range(2):
    for name, values in REPORTS[rank]:
        means.update(name, torch.tensor(values))
    expected = {"train/a": 1.5, "train/b": 6.0, "train/c": 9.0}
    assert means.compute_and_reset("train", device) == expected
    assert means.compute_and_reset("val", device) == {"val/a": 0.0}
assert means.compute_and_reset("train", device) == {}
distributed.destroy_process_group()  # its threads may abort the exit of the interpreter
"""


@pytest.mark.slow
def test_processes_with_different_metrics_agree_on_their_means(tmp_path: Path) -> None:
    meeting_point = f"file://{tmp_path}/meet"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), meeting_point],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors
