"""Checkpoint files: whole or absent after a kill, an error or damage."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from vla.errors import DataError
from vla.training.checkpoint_io import (
    LAST,
    PREVIOUS,
    AtomicCheckpointIO,
    checkpoint_step,
    is_whole,
    latest_checkpoint,
)

WRITER = """
import sys, torch
from pathlib import Path
from vla.training.checkpoint_io import AtomicCheckpointIO
for step in range(1, 10_000):
    state = {"global_step": step, "weights": torch.full((400_000,), float(step))}
    AtomicCheckpointIO().save_checkpoint(state, Path(sys.argv[1]) / "last.ckpt")
    print(step, flush=True)
"""


def save(folder: Path, *steps: int) -> None:
    for step in steps:
        state = {"global_step": step, "weights": torch.full((1000,), float(step))}
        AtomicCheckpointIO().save_checkpoint(state, folder / LAST)


def test_the_previous_checkpoint_is_kept_and_both_are_whole(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    save(tmp_path, 1, 2, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == [LAST, PREVIOUS]
    assert [checkpoint_step(tmp_path / name) for name in (LAST, PREVIOUS)] == [3, 2]
    assert latest_checkpoint(tmp_path) == tmp_path / LAST
    loaded = AtomicCheckpointIO().load_checkpoint(tmp_path / LAST)
    assert torch.equal(loaded["weights"], torch.full((1000,), 3.0))


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "foreign"])
def test_a_damaged_checkpoint_is_named_and_the_previous_one_is_used(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, 5, 6)
    path = tmp_path / LAST
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    other: dict[str, bytes] = {
        "empty": b"",
        "truncated": bytes(content[:-900]),
        "foreign": b"x" * 50,
    }
    path.write_bytes(other.get(damage, bytes(content)))
    assert latest_checkpoint(tmp_path) == tmp_path / PREVIOUS
    assert f"{path}: damaged (its checksum differs); {tmp_path / PREVIOUS} is used" in (
        capsys.readouterr().err
    )
    (tmp_path / PREVIOUS).write_bytes(b"")
    with pytest.raises(DataError, match=rf"{LAST}: damaged .*delete it to train again"):
        latest_checkpoint(tmp_path)


def test_a_damaged_checkpoint_does_not_replace_the_previous_one(tmp_path: Path) -> None:
    """A kill in the first save after the damage then leaves a whole file."""
    save(tmp_path, 5, 6)
    (tmp_path / LAST).write_bytes(b"damaged")
    save(tmp_path, 7)
    assert [checkpoint_step(tmp_path / name) for name in (LAST, PREVIOUS)] == [7, 5]


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    save(tmp_path, 1)
    path = tmp_path / LAST
    content = path.read_bytes()
    for position in random.Random(0).sample(range(len(content)), 100):
        path.write_bytes(
            content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
        )
        assert not is_whole(path), position


def test_without_last_the_previous_checkpoint_is_used(tmp_path: Path) -> None:
    """A kill between the two renames leaves this state."""
    save(tmp_path, 1, 2)
    (tmp_path / LAST).unlink()
    assert latest_checkpoint(tmp_path) == tmp_path / PREVIOUS


@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_full_disk_leaves_the_old_checkpoints(
    tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, 2)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    written = 0

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            nonlocal written
            written += 1
            if written > at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return int(self.file.write(data))

    writer = "vla.training.checkpoint_io._HashingWriter"
    original = AtomicCheckpointIO.save_checkpoint.__globals__["_HashingWriter"]
    monkeypatch.setattr(writer, lambda file: original(Full(file)))
    with pytest.raises(DataError, match=rf"{LAST}: cannot be written \(No space left on device\)"):
        save(tmp_path, 3)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_nothing_is_written_to_the_folder_of_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "absent"))
    monkeypatch.setattr("tempfile.tempdir", None)
    save(tmp_path, 1, 2)
    assert is_whole(tmp_path / LAST)


@pytest.mark.slow
def test_a_killed_writer_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    done = 0
    for seed in range(12):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout and process.stdout.readline() == "1\n"
        time.sleep(random.Random(seed).uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        lines = process.communicate()[0].split()
        done = int(lines[-1]) if lines else 1
        path = latest_checkpoint(tmp_path)
        assert path is not None
        state = AtomicCheckpointIO().load_checkpoint(path)
        assert state["global_step"] >= done - (path.name == PREVIOUS)
        assert (state["weights"] == state["global_step"]).all()
