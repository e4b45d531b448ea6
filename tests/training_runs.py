"""Runs of ``vla train`` in other processes, and their logged losses."""

from __future__ import annotations

import csv
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from vla.training.provenance import COLUMNS, FILE
from vla.utils.csv_tables import read_table

GOLDEN = Path(__file__).parent / "golden_losses.json"
# Rates and results that depend on the machine.
TIMES = ("images_per_second", "flop_utilisation", "eval/success")
VLA = [sys.executable, "-c", "from vla.cli import main; main()"]


def losses(run: Path, name: str = "train/loss") -> dict[int, str]:
    """Logged values by step; the last file counts, since a resumed run writes a new file.

    Lightning writes a file again when it has a new column, so a row may be incomplete meanwhile.
    """
    found: dict[int, str] = {}
    for path in sorted(run.glob("csv*/metrics.csv")):
        with path.open(newline="") as file:
            rows = [r for r in csv.DictReader(file) if r.get(name)]
            found |= {int(r["step"]): r[name] for r in rows if str(r["step"]).isdigit()}
    return found


def curves(folder: Path) -> list[dict[str, str]]:
    """The rows of ``curves.csv`` without rates."""
    with (folder / "curves.csv").open(newline="") as file:
        return [{k: v for k, v in r.items() if k not in TIMES} for r in csv.DictReader(file)]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows, without rates."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard" / folder.name)).Reload()
    names = [n for n in events.Tags()["scalars"] if n not in TIMES]
    return {n: [(e.step, e.value) for e in events.Scalars(n)] for n in sorted(names)}


def default_interrupt_handler() -> None:
    """Background processes may ignore Ctrl-C, and their children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(command: list[str]) -> subprocess.Popen[str]:
    """A process in its own process group, as a terminal and a scheduler start it."""
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_interrupt_handler,
        start_new_session=True,
    )


def stopped_step(errors: str, run: Path, steps: int) -> int:
    """The step in the message of an interrupted run; the checkpoint has to be of the same step."""
    message = rf"interrupted: stopped at step (\d+) of {steps}; the same command continues"
    found = re.search(message, errors)
    assert found, errors
    checkpoint = torch.load(run / "last.ckpt", weights_only=True)
    assert int(found[1]) == checkpoint["global_step"]
    return int(found[1])


def stopped_and_continued(
    run_config: dict[str, Any], folder: Path, stop: signal.Signals, group: bool = False
) -> list[tuple[dict[int, str], dict[int, str]]]:
    """(losses, validation losses) of a run without a stop, and of one that stopped and continued.

    Args:
        run_config: the run; its length and intervals are changed.
        folder: for both runs.
        stop: the signal.
        group: send it to the whole process group, as a terminal and a scheduler do.
    """
    killed = stop is signal.SIGKILL
    val_every = 1 if group and stop is signal.SIGINT else 4  # 1: every stop is after a validation
    changes = {"steps": 60, "val_every": val_every, "save_every": 2 if killed else 16}
    settings = run_config | {"train": run_config["train"] | changes}
    curves = []
    for name in ("whole", "stopped"):
        config, run = folder / f"{name}.yaml", folder / name
        config.write_text(yaml.safe_dump(settings | {"output_dir": str(run)}))
        command = [*VLA, "train", str(config)]
        if name == "stopped":
            process = start(command)
            while not (run / "last.ckpt").exists() and process.poll() is None:
                time.sleep(0.02)
            time.sleep(random.uniform(0.0, 0.2))
            assert process.poll() is None, "finished before it could be stopped"
            os.killpg(process.pid, stop) if group else process.send_signal(stop)
            errors = process.communicate()[1]
            assert not (run / "policy").exists()
            if not killed:
                assert process.returncode == 130
                stopped_step(errors, run, 60)
        subprocess.run(command, check=True, capture_output=True)
        curves.append((losses(run), losses(run, "val/loss")))
        first, *later = [int(row["step"]) for row in read_table(run / FILE, COLUMNS)]
        assert first == 0 and len(later) == (name == "stopped")
        assert all(0 < step < 60 for step in later)
    return curves
