"""Results of other studies and of earlier runs: reuse, and ``vla study --reproduce``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import TINY_POLICY
from study_rows import TABLETOP, episodes

from vla.errors import ConfigError, ReproductionMismatch
from vla.experiments.study.reproduce import COLUMNS
from vla.experiments.study.run import run_study
from vla.experiments.study.summaries import SUCCESS, success_row
from vla.utils.csv_tables import read_table, write_table


@pytest.mark.slow
def test_equal_results_pass_and_differences_are_listed(
    tiny_run: dict[str, Any], tiny_data: dict[str, str], tmp_path: Path
) -> None:
    run = tiny_run | {
        "train": tiny_run["train"] | {"steps": 2, "val_every": 2, "val_windows": 4},
        "policy": TINY_POLICY,
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    out, runs, path = tmp_path / "out", tmp_path / "runs", str(tmp_path / "study.yaml")
    study = {
        "recipes": {
            "web": {
                "config": "run.yaml",
                "change": ["data.sampling_weights={web: 1.0, robot: 0.0}"],
                "rollouts": False,
            },
            "both": {"config": "run.yaml", "init_from": "web"},
            "margin": {"reuse_policy": "both", "plan_switch_margin": 8.0, "vqa": False},
            "saved": {"policy": str(tmp_path / "saved"), "vqa": False},
        },
        "benchmark": {"name": "tabletop"},
        "tasks": ["seen"],
        "episodes": 2,
        "seed": 77,
        "vqa": tiny_data["web"],
        "questions": 6,
        "out": str(out),
        "runs": str(runs),
    }
    Path(path).write_text(yaml.safe_dump(study, sort_keys=False))
    with pytest.raises(ConfigError, match=r"--reproduce both: .*out has no results of it"):
        run_study(path, [], ["both"], False, reproduce=True)
    run_study(path, [], ["web"], False)
    shutil.copytree(runs / "web/policy", tmp_path / "saved")
    run_study(path, [], [], False)
    names = ("success.csv", "vqa.csv", "curves.csv", "results.csv")
    files = {name: (out / name).read_bytes() for name in names}
    curves = {
        n: str(sum(r["recipe"] == n for r in read_table(out / "curves.csv")))
        for n in ("web", "both")
    }
    shutil.rmtree(runs)  # as in a fresh clone
    # its policy is missing, so it is trained, and so is the one that it starts from
    run_study(path, [], ["margin"], False, reproduce=True)
    assert (runs / "reproduce/runs/both/policy").is_dir()
    run_study(path, [], [], False, reproduce=True)
    assert {name: (out / name).read_bytes() for name in files} == files
    rows = {
        r["recipe"]: [r[c] for c in COLUMNS[1:]]
        for r in read_table(out / "reproduced.csv", COLUMNS)
    }
    tests = str(sum(r["recipe"] == "both" for r in read_table(out / "vqa.csv")))
    assert rows == {
        "web": ["1", "0", "0", tests, "0", curves["web"], ""],
        "both": ["1", "1", "0", tests, "0", curves["both"], ""],
        "margin": ["0", "1", "0", "0", "0", "", ""],
        "saved": ["0", "1", "0", "0", "0", "", ""],
    }
    change(out / "success.csv", "both,seen,77,2,", "both,seen,77,3,")
    change(out / "curves.csv", "both,lr,2,", "both,lr,3,")
    with pytest.raises(
        ReproductionMismatch, match=r"both \(1 tasks, 0 tests\); the new rows are in .*reproduce"
    ):
        run_study(path, [], [], False, reproduce=True)
    different = {
        r["recipe"]: [r["tasks_different"], r["curves_different"]]
        for r in read_table(out / "reproduced.csv", COLUMNS)
    }
    assert different == {
        "web": ["0", ""],
        "both": ["1", "lr"],
        "margin": ["0", ""],
        "saved": ["0", ""],
    }


def change(path: Path, old: str, new: str) -> None:
    """Replace a text that occurs once in a file."""
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_results_of_the_study_that_trains_a_policy_are_reused(tmp_path: Path) -> None:
    first = {
        "recipes": {"good": {"config": "x.yaml"}, "other": {"config": "x.yaml"}},
        "benchmark": TABLETOP,
        "out": str(tmp_path / "out1"),
        "runs": str(tmp_path / "runs1"),
    }
    (tmp_path / "first.yaml").write_text(yaml.safe_dump(first))
    rows = [
        success_row(n, t, episodes(t, wins, 3))
        for n, wins in (("good", 2), ("other", 1))
        for t in ("seen", "symbol")
    ]
    write_table(tmp_path / "out1/success.csv", rows, SUCCESS)
    policy = tmp_path / "runs1/good/policy"
    second = {
        "recipes": {"again": {"policy": str(policy), "made_by": "first.yaml"}},
        "benchmark": TABLETOP,
        "tasks": ["seen"],
        "episodes": 3,
        "seed": 0,
        "out": str(tmp_path / "out2"),
        "runs": str(tmp_path / "runs2"),
    }
    path = tmp_path / "second.yaml"
    path.write_text(yaml.safe_dump(second))
    with pytest.raises(ConfigError, match=r"train it with `vla study .*first.yaml --only good`"):
        run_study(str(path), [], [], False)
    policy.mkdir(parents=True)  # an empty folder: an evaluation would fail
    with pytest.raises(Exception, match="runs1/good/policy"):
        run_study(str(path), ["seed=8"], [], False)
    run_study(str(path), [], [], False)
    (found,) = read_table(tmp_path / "out2/success.csv", SUCCESS)
    assert found == {k: str(v) for k, v in rows[0].items()} | {"recipe": "again"}
