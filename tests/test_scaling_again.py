"""A ladder made again: the same rows, or told which are not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vla.config import ConfigError
from vla.scaling.ladder import load_ladder, read_rows
from vla.scaling.run import run_ladder
from vla.tables import Differs

ONE = ["seeds=[0]"]


@pytest.mark.slow
def test_a_ladder_made_again_is_the_same_or_says_where_not(ladder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, runs = (Path(getattr(load_ladder(ladder, []), k)) for k in ("out", "runs"))
    with pytest.raises(ConfigError, match=r"--again: .*results.csv has no rows to compare with"):
        run_ladder(str(ladder), ONE, again=True)
    run_ladder(str(ladder), ONE)
    before = (out / "results.csv").read_bytes()
    shutil.rmtree(runs)  # as in a fresh clone
    capsys.readouterr()
    run_ladder(str(ladder), ONE, again=True)
    assert "4 of 4 rows made again are the same, of 4" in capsys.readouterr().out
    assert (out / "results.csv").read_bytes() == before and not (out / "report.md").exists()
    assert {r["run"] for r in read_rows(out / "again.csv")} == {
        f"run-{size}-{data}-s0" for size in "sm" for data in ("few", "many")
    }
    assert (runs / "again/pretrain-s-s0/policy").is_dir() and not list(runs.glob("run-*"))
    shutil.rmtree(runs)  # what has its row is not made a third time
    text = (out / "again.csv").read_text().replace(",pick,1,", ",pick,2,", 1)
    (out / "again.csv").write_text(text)
    with pytest.raises(Differs, match=r"again.csv: not the same when made again: run-m-few-s0 \(episodes\)$"):
        run_ladder(str(ladder), ONE, again=True)
    assert not runs.exists() and "3 of 4 rows made again are the same" in capsys.readouterr().out
