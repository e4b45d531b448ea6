"""Runs on several processes: the same losses for any number, with DDP and with FSDP."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from vla.policies.checkpoint import load_policy
from vla.training.curves import read_curves

STEPS = 8


def trained(run: dict[str, Any], folder: Path, steps: int = STEPS, **trainer: Any) -> Path:
    """The folder of the run, trained by the command line with these options of the trainer."""
    run = run | {"output_dir": str(folder), "trainer": {"accelerator": "cpu"} | trainer}
    run["train"] = run["train"] | {"steps": steps, "val_every": 4, "save_every": 4}
    run["optim"] = {"warmup_steps": 2, "schedule": "constant"}
    path, script = folder.with_suffix(".yaml"), folder.with_suffix(".py")
    path.write_text(yaml.safe_dump(run))
    script.write_text("from vla.cli import main\n\nif __name__ == '__main__':\n    main()\n")
    done = subprocess.run(
        [sys.executable, str(script), "train", str(path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "error" not in done.stderr, done.stderr[-3000:]  # of any process
    return folder


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Losses and metrics by step, without rates."""
    rates = ("images_per_second", "flop_utilisation")
    return {name: points for name, points in read_curves(folder).items() if name not in rates}


def assert_same(folder: Path, reference: Path) -> None:
    """Losses, metrics and weights agree up to the order of additions."""
    ours, theirs = curves(folder), curves(reference)
    assert ours.keys() == theirs.keys() and len(ours["train/loss"]) == STEPS
    for name, points in theirs.items():
        assert [s for s, _ in ours[name]] == [s for s, _ in points], name
        values = [v for _, v in points]
        assert [v for _, v in ours[name]] == pytest.approx(values, rel=1e-5, abs=1e-6), name
    a, b = (load_policy(f / "policy").state_dict() for f in (folder, reference))
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.allclose(tensor, b[name], atol=2e-4), name


@pytest.mark.slow
def test_the_number_of_processes_does_not_change_a_run(
    tiny_run: dict[str, Any], tmp_path: Path
) -> None:
    one = trained(tiny_run, tmp_path / "one")
    assert_same(trained(tiny_run, tmp_path / "ddp", devices=2), one)
    assert_same(trained(tiny_run, tmp_path / "fsdp", devices=2, strategy="fsdp"), one)
    mixed = tmp_path / "mixed"
    trained(tiny_run, mixed, 4)
    assert_same(trained(tiny_run, mixed, STEPS, devices=2, strategy="fsdp"), one)
