"""A study made again: the same rows, or told which are not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import TINY_POLICY

from vla.config import ConfigError
from vla.study.again import COLUMNS
from vla.study.run import run_study
from vla.tables import Differs, read_table


def test_a_study_made_again_is_the_same_or_says_where_not(
    tiny_run: dict[str, Any], tiny_data: dict[str, str], tmp_path: Path
) -> None:
    run = tiny_run | {"train": tiny_run["train"] | {"steps": 2, "val_every": 2, "val_windows": 4}, "policy": TINY_POLICY}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    out, runs, path = tmp_path / "out", tmp_path / "runs", str(tmp_path / "study.yaml")
    study = {
        "recipes": {
            "web": {"config": "run.yaml", "change": ["data.mixture={web: 1.0, robot: 0.0}"], "acts": False, "keep": True},
            "both": {"config": "run.yaml", "after": "web"},
            "held": {"of": "both", "hold_plan": 8.0, "answers": False},
            "theirs": {"policy": str(out / "web"), "answers": False},
        },
        "cells": ["seen"], "episodes": 2, "seed": 77, "vqa": tiny_data["web"], "questions": 6, "out": str(out), "runs": str(runs),
    }  # fmt: skip
    Path(path).write_text(yaml.safe_dump(study, sort_keys=False))
    with pytest.raises(ConfigError, match=r"--again both: .*out has no rows of it"):
        run_study(path, [], ["both"], False, again=True)
    run_study(path, [], [], False)
    files = {name: (out / name).read_bytes() for name in ("episodes.csv", "answers.csv", "metrics_both.csv", "report.md")}
    curves = {name: str(len(read_table(out / f"metrics_{name}.csv")[0]) - 2) for name in ("web", "both")}  # all but the rates
    (raw,) = runs.glob("web/csv*/metrics.csv")
    assert raw.read_bytes() != (out / "metrics_web.csv").read_bytes()
    shutil.copyfile(raw, out / "metrics_web.csv")  # the logger's own lines, as the oldest studies have them
    shutil.rmtree(runs)  # as in a fresh clone
    run_study(path, [], ["held"], False, again=True)  # what it drives is nowhere, so it is trained, from the web stage that is kept
    assert (runs / "again/runs/both/policy").is_dir() and not (runs / "again/runs/web").exists()
    run_study(path, [], [], False, again=True)
    assert {name: (out / name).read_bytes() for name in files} == files  # the study's own
    rows = {r["recipe"]: [r[c] for c in COLUMNS[1:]] for r in read_table(out / "again.csv", COLUMNS)}
    assert rows["both"] == ["1", "2", "0", "6", "0", curves["both"], "", ""]
    assert rows["held"] == ["0", "2", "0", "0", "0", "", "", ""]
    assert rows["web"] == ["1", "0", "0", "6", "0", curves["web"], "", "same"]
    assert rows["theirs"] == ["0", "2", "0", "0", "0", "", "", ""] and len(rows) == 4
    text = (out / "episodes.csv").read_text().splitlines(keepends=True)
    text[1] = text[1].replace("77,0", "77,1")
    (out / "episodes.csv").write_text("".join(text))
    lines = (out / "metrics_both.csv").read_text().replace("\n2,", "\n3,")
    (out / "metrics_both.csv").write_text(lines)
    with pytest.raises(Differs, match=r"both \(1 episodes, 0 answers\); the new rows are in .*again"):
        run_study(path, [], [], False, again=True)
    rows = {r["recipe"]: [r["episodes_other"], r["curves_other"]] for r in read_table(out / "again.csv", COLUMNS)}
    assert rows == {"web": ["0", ""], "both": ["1", "step"], "held": ["0", ""], "theirs": ["0", ""]}
