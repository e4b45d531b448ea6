"""``vla scale --reproduce`` compares new rows with the committed table."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vla.errors import ConfigError, ReproductionMismatch
from vla.experiments.scaling.ladder import load_ladder, read_rows
from vla.experiments.scaling.run import run_ladder

ONE = ["seeds=[0]"]


@pytest.mark.slow
def test_equal_rows_pass_and_differences_are_listed(
    ladder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, runs = (Path(getattr(load_ladder(ladder, []), k)) for k in ("out", "runs"))
    with pytest.raises(
        ConfigError, match=r"--reproduce: .*results.csv has no rows to compare with"
    ):
        run_ladder(str(ladder), ONE, reproduce=True)
    run_ladder(str(ladder), ONE)
    before = (out / "results.csv").read_bytes()
    shutil.rmtree(runs)  # as in a fresh clone
    capsys.readouterr()
    run_ladder(str(ladder), ONE, reproduce=True)
    assert "4 of 4 reproduced rows are equal" in capsys.readouterr().out
    assert (out / "results.csv").read_bytes() == before and not (out / "fit.csv").exists()
    assert {r["run"] for r in read_rows(out / "reproduced.csv")} == {
        f"run-{size}-{data}-s0" for size in "sm" for data in ("few", "many")
    }
    assert (runs / "reproduce/pretrain-s-s0/policy").is_dir() and not list(runs.glob("run-*"))
    shutil.rmtree(runs)  # runs with a row are not executed again
    text = (out / "reproduced.csv").read_text().replace(",pick,1,", ",pick,2,", 1)
    (out / "reproduced.csv").write_text(text)
    with pytest.raises(
        ReproductionMismatch,
        match=r"reproduced.csv: different numbers: run-m-few-s0 \(episodes\)$",
    ):
        run_ladder(str(ladder), ONE, reproduce=True)
    assert not runs.exists() and "3 of 4 reproduced rows are equal" in capsys.readouterr().out
