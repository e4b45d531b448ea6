"""Tables fit the terminal, and different rows stay different."""

from __future__ import annotations

import pytest

from vla.utils.tables import print_table, shorten
from vla.utils.text import count, size

ROWS = [
    {"policy": f"runs/a/long/folder/of/experiments/seed_{k}/variant/policy", "success": f"{k}.0 %"}
    for k in range(12)
]


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_rows_fit_and_no_two_look_alike(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    print_table(ROWS, "title")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    names = [line.split()[0] for line in lines if "%" in line]
    assert len(set(names)) == 12


def test_numbers_are_never_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    wide = [{f"column {k}": f"{k}.123456789 ms" for k in range(8)} | {"name": "x" * 70}]
    print_table(wide)
    out = capsys.readouterr().out
    assert all(f"{k}.123456789 ms" in out for k in range(8)) and "x" * 70 in out


def test_a_pipe_has_no_width(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table([{"name": "x" * 300, "text": "words [in] brackets " * 30}])
    out = capsys.readouterr().out
    assert "x" * 300 in out and "words [in] brackets " * 30 in out


def test_sentences_are_broken_into_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print_table([{"name": "a", "text": "one two three four five six seven [eight] nine"}])
    out = capsys.readouterr().out
    assert "…" not in out and "[eight]" in out and max(map(len, out.splitlines())) <= 40


def test_shortened_texts_differ_wherever_the_difference_is() -> None:
    for place in (0, 20, 35, 59):
        texts = ["x" * place + letter + "y" * (60 - place) for letter in "ab"]
        short = shorten(texts, 20)
        assert len(set(short)) == 2 and max(map(len, short)) <= 20
    assert shorten(["same" * 20] * 2, 10) == ["same" + "…" + "esame"] * 2


def test_counts_have_units() -> None:
    assert count(1, "shard") == "1 shard" and count(2272, "step") == "2272 steps"
    assert count(2, "entry", "entries") == "2 entries"
    assert [size(n) for n in (12, 1500, 2_500_000)] == ["12 bytes", "1.5 kB", "2.5 MB"]
