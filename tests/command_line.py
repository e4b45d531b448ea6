"""Calls of the command line in this process, because each start imports for seconds."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPOSITORY

from vla.cli import main


def call(*args: str | Path) -> int:
    """The exit code of a command in this process."""
    sys.argv = ["vla", *map(str, args)]
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(sys, "argv", ["vla"])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def line(here: None, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Call a command that must fail with exit code 2; returns its only line of errors."""

    def one_line(*args: str | Path) -> str:
        code = call(*args)
        text = capfd.readouterr().err
        assert code == 2 and "Traceback" not in text, text
        errors = [row for row in text.splitlines() if row.startswith("error: ")]
        assert len(errors) == 1, text
        return errors[0]

    return one_line
