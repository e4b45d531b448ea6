"""The printed page of ``vla diagnose``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vla.diagnose import report
from vla.diagnose.lines import Line, few_episodes, not_judged

LONG = "the policy agrees best with images of later rows than the actions " * 3


def lines(*_: Any) -> Iterator[Line]:
    start: Callable[[str], None] = _[-1]
    start("video timing")
    yield Line("video timing", "fail", LONG.strip(), "pack [again]", "shifted video")
    start("language")
    yield few_episodes("language", 1, "error 0.1")
    yield not_judged("LoRA", "the policy has no adapters")
    yield Line("server", "ok", "equal actions")
    yield Line("replay", "warn", "not judged: no display", judged=False)


def test_lines_have_a_hanging_indent_and_skipped_checks_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(report, "diagnose", lines)
    monkeypatch.setattr(
        report, "open_subject", lambda *_: SimpleNamespace(folder="run/policy", data="data")
    )
    monkeypatch.delenv("COLUMNS", raising=False)
    page = tmp_path / "page.html"
    assert report.run_diagnose(Path("run"), None, {}, None, 8, 1, False, page) == 2
    out, err = capsys.readouterr()
    shown = [row.rstrip() for row in out.splitlines()]
    assert shown[0] == "vla diagnose: run/policy on data"
    assert shown[1].startswith("fail video timing: the policy agrees best")
    assert all(row.startswith("     ") for row in shown[2:4])
    assert all(len(row) <= 100 for row in shown)
    assert "     fix: pack [again]" in shown
    assert "skip language: not judged: 1 episode, 5 are needed; error 0.1" in shown
    assert "skip LoRA: not judged: the policy has no adapters" in shown
    assert "warn replay: not judged: no display" in shown
    assert shown[-1] == "1 fail, 1 warn, 1 ok, 2 not judged; likely faults: shifted video"
    assert err.splitlines()[:2] == ["checking video timing", "checking language"]
    assert "SKIP: LoRA" in page.read_text()
