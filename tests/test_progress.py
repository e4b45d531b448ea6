"""Progress in log files: a plain line at most every 30 seconds."""

from __future__ import annotations

import sys

import pytest

from vla.utils import progress
from vla.utils.progress import Progress, track


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_file_gets_a_line_every_30_seconds_and_one_at_the_end(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in track(range(100), "pack data/mine", unit="episodes"):
        clock[0] += 1.0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "pack data/mine: 30/100 episodes, 1/s, ETA 0:01:10"
    assert lines[-1] == "pack data/mine: 100/100 episodes, 1/s, ETA 0:00:00"
    assert len(lines) == 4


def test_the_last_line_is_not_repeated(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("pack", 2, "episodes") as work:
        clock[0] += 40.0
        work.advance(2)
    assert capsys.readouterr().err.splitlines() == ["pack: 2/2 episodes, 0.05/s, ETA 0:00:00"]


def test_short_work_and_hidden_progress_print_nothing(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(track([1, 2], "short")) == [1, 2]
    with Progress("hidden", 5, show=False) as hidden:
        clock[0] += 100
        hidden.advance()
    assert capsys.readouterr() == ("", "")


def test_continued_work_has_the_rate_of_this_call_only(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("pack", 100, done=80) as continued:
        clock[0] += 30
        continued.advance(10)
    assert capsys.readouterr().err.startswith("pack: 90/100, 0.333/s, ETA 0:00:30")


def test_a_terminal_gets_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with Progress("pack", 4, "episodes") as bar:
        bar.advance(4)
    shown = capsys.readouterr().err
    assert "100%" in shown and "4/4 episodes" in shown
