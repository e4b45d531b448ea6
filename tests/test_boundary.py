"""Every exception ends a command with one line and an exit code."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import call, here, line  # fixtures

__all__ = ["here", "line"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/x.tar"),
            "the disk of /data/x.tar",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk of nowhere is full"),
        (RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos"), "is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/data"), "/data: permission denied"),
        (OSError(errno.EROFS, "Read-only file system", "/d"), "/d: the file system is read-only"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "/d"), "/d: is a folder"),
        (MemoryError(), "the memory is full"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "memory is full"),
        (json.JSONDecodeError("Expecting value", "", 0), "Expecting value"),
    ],
)
def test_errors_of_the_operating_system(
    line: Callable[..., str], monkeypatch: pytest.MonkeyPatch, error: Exception, expected: str
) -> None:
    monkeypatch.setattr("vla.data.verification.verify", raising(error))
    assert expected in line("data", "verify", "nowhere")


def raising(error: BaseException) -> Callable[[Path], Any]:
    def verify(directory: Path) -> None:
        raise error

    return verify


def test_a_defect_is_one_line_and_a_file_with_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vla.data.verification.verify", raising(TypeError("two\nlines")))
    assert call("data", "verify", "nowhere") == 70
    [text] = capfd.readouterr().err.strip().splitlines()
    assert text.startswith(
        "error: a defect of vla, not of your input: TypeError in vla/cli/data.py"
    )
    log = Path(text.split()[-1]).read_text()
    assert "Traceback" in log and "two\nlines" in log and "command: vla data verify" in log
    monkeypatch.setenv("VLA_DEBUG", "1")
    assert call("data", "verify", "nowhere") == 70
    assert "Traceback" in capfd.readouterr().err


def test_ctrl_c_is_one_line_also_if_a_library_hides_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def hidden(directory: Path) -> None:
        try:
            os.kill(os.getpid(), 2)
        except KeyboardInterrupt:
            raise ImportError("numpy could not be imported") from None

    monkeypatch.setattr("vla.data.verification.verify", hidden)
    assert call("data", "verify", "nowhere") == 130
    assert capfd.readouterr().err == "interrupted\n"
    monkeypatch.setattr("vla.data.pack.pack_from", lambda *_: os.kill(os.getpid(), 2))
    assert call("pack", "a", "b") == 130
    assert capfd.readouterr().err == "interrupted; the same command continues\n"


def test_ctrl_c_in_a_destructor_still_ends_the_command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Python discards exceptions of destructors."""

    class Closing:
        def __del__(self) -> None:
            os.kill(os.getpid(), 2)

    def work(directory: Path) -> None:
        Closing()
        time.sleep(10)
        raise AssertionError("the interrupt was lost")

    monkeypatch.setattr("vla.data.verification.verify", work)
    assert call("data", "verify", "nowhere") == 130
    assert capfd.readouterr().err == "interrupted\n"


def test_an_error_of_a_loader_process_is_shown_without_its_traceback(
    line: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most recent call "
        'last):\n  File "x.py", line 1, in y\nvla.errors.DataError: shard-1.tar: checksum differs\n'
    )
    monkeypatch.setattr("vla.data.verification.verify", raising(ValueError(text)))
    assert line("data", "verify", "nowhere") == "error: shard-1.tar: checksum differs"


def test_packages_that_are_not_there(
    line: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'vla[ray]'" in line(
        "pack", "configs/pack/demo_robot.yaml", tmp_path / "out", "--ray", "local"
    )


def test_clusters_that_are_not_there(
    line: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "sbatch is not here" in line("scale", "no.yaml", "--launcher", "slurm")
    assert "did you mean 'slurm'" in line("scale", "no.yaml", "--launcher", "slrum")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert "pip install 'vla[cluster]'" in line("scale", "no.yaml", "--launcher", "slurm")
    assert "pip install 'vla[ray]'" in line("scale", "no.yaml", "--launcher", "ray")


def test_a_closed_pipe_is_silent() -> None:
    code = (
        "import sys, vla.cli; from vla.cli.boundary import run\n"
        "run(lambda: [print('x' * 1000) for _ in range(1000)])"
    )
    command = f'{sys.executable} -c "{code}" | head -1 > /dev/null; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "1" and done.stderr == ""
