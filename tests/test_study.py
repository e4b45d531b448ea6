"""A study trains, evaluates and compares once; its tables follow from its summaries."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import TINY_POLICY
from study_rows import TABLETOP, episodes

from vla.errors import ConfigError
from vla.experiments.study.config import load_study
from vla.experiments.study.execute import needed
from vla.experiments.study.run import run_study
from vla.experiments.study.summaries import (
    ANSWERS,
    EPISODES,
    LATENCY,
    PROVENANCE,
    SUCCESS,
    TIMES,
    VQA,
    success_row,
    vqa_rows,
)
from vla.utils.csv_tables import read_table, write_table


@pytest.mark.slow
def test_a_study_runs_once_and_reports(
    tiny_run: dict[str, Any], tiny_data: dict[str, str], tmp_path: Path
) -> None:
    run = tiny_run | {
        "train": tiny_run["train"] | {"steps": 2, "val_every": 2, "val_windows": 4},
        "policy": TINY_POLICY,
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    out, runs = tmp_path / "out", tmp_path / "runs"
    study = {
        "recipes": {
            "web": {
                "config": "run.yaml",
                "change": ["data.sampling_weights={web: 1.0, robot: 0.0}"],
                "rollouts": False,
            },
            "both": {
                "config": "run.yaml",
                "init_from": "web",
                "label": "co-fine-tuned",
                "x": 0.5,
            },
            "margin": {"reuse_policy": "both", "plan_switch_margin": 8.0, "vqa": False},
            "same": {"policy": str(runs / "both/policy"), "x": 1.0},
        },
        "benchmark": TABLETOP,
        "tasks": ["seen", "symbol"],
        "episodes": 1,
        "seed": 77,
        "vqa": tiny_data["web"],
        "questions": 6,
        "pairs": [["both", "same"]],
        "axis": "share of robot data",
        "latency": 3,
        "out": str(out),
        "runs": str(runs),
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    run_study(str(path), [], ["web"], False)
    assert not (out / "success.csv").exists() and (out / "results.csv").is_file()
    run_study(str(path), [], [], False)
    rows = read_table(out / "success.csv", SUCCESS)
    names = [(n, c) for n in ("both", "margin", "same") for c in ("seen", "symbol")]
    assert [(r["recipe"], r["task"]) for r in rows] == names
    assert {(r["first_seed"], r["episodes"]) for r in rows} == {("77", "1")}
    same = [[r[c] for c in ("task", "outcomes", "digest")] for r in rows]
    assert same[:2] == same[4:]  # the same policy on the same episodes
    (kept,) = (r for r in read_table(runs / "both/episodes.csv", EPISODES) if r["task"] == "symbol")
    assert success_row("both", "symbol", [kept])["digest"] == rows[1]["digest"]
    answers = read_table(runs / "both/answers.csv", ANSWERS)
    summary = [r for r in read_table(out / "vqa.csv", VQA) if r["recipe"] == "both"]
    assert len(answers) == 6
    assert [{k: str(v) for k, v in r.items()} for r in vqa_rows("both", answers)] == summary
    results = read_table(out / "results.csv")
    assert {r["recipe"] for r in results} == set(study["recipes"])
    (pair, _) = read_table(out / "pairs.csv")
    assert (pair["first"], pair["second"], pair["group"], pair["pairs"]) == (
        *("both", "same", "seen", "1"),
    )
    made = read_table(out / "provenance.csv", PROVENANCE)
    assert [(r["recipe"], r["step"], r["torch"]) for r in made] == [
        (n, "0", torch.__version__) for n in ("web", "both")
    ]
    times = read_table(runs / "latency.csv", TIMES)
    assert [(r["recipe"], r["action"]) for r in times] == [
        (n, str(k)) for k in range(3) for n in ("both", "margin", "same")
    ]
    latency = read_table(out / "latency.csv", LATENCY)
    assert latency[0]["times_first"] == "1.0000" and all(float(r["median_ms"]) > 0 for r in latency)
    assert (out / "curves.png").stat().st_size > 5000
    curves = {r["metric"]: r for r in read_table(out / "curves.csv") if r["recipe"] == "both"}
    assert curves["val/loss/robot"]["step"] == "2" and "images_per_second" not in curves


def test_complete_recipes_are_skipped_in_a_fresh_clone(tmp_path: Path) -> None:
    study = {
        "recipes": {
            "web": {"config": "x.yaml", "rollouts": False, "vqa": False},
            "both": {"config": "x.yaml", "init_from": "web"},
            "same": {"policy": str(tmp_path / "runs/both/policy")},
        },
        "benchmark": TABLETOP,
        "tasks": ["seen", "symbol"],
        "latency": 3,
        "out": str(tmp_path / "out"),
        "runs": str(tmp_path / "runs"),
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    rows = [success_row(n, t, episodes(t, 1)) for n in ("both", "same") for t in ("seen", "symbol")]
    write_table(tmp_path / "out/success.csv", rows, SUCCESS)
    before = (tmp_path / "out/success.csv").stat().st_mtime_ns
    run_study(str(path), [], [], False)
    assert (tmp_path / "out/success.csv").stat().st_mtime_ns == before
    assert not (tmp_path / "runs/both").exists()
    config = load_study(path)
    assert needed(config, list(config.recipes)) == []
    write_table(tmp_path / "out/success.csv", [r for r in rows if r is not rows[1]], SUCCESS)
    assert needed(config, ["both"]) == ["web", "both"]
    assert needed(config, ["same"]) == []
    (tmp_path / "runs/web/policy").mkdir(parents=True)
    assert needed(config, ["both"]) == ["both"]


def test_times_stay_if_a_policy_is_gone(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    study = {
        "recipes": {"here": {"policy": str(tmp_path / "p")}},
        "benchmark": TABLETOP,
        "tasks": ["seen"],
        "latency": 3,
        "out": str(tmp_path / "out"),
        "runs": str(tmp_path / "runs"),
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    write_table(
        tmp_path / "out/success.csv", [success_row("here", "seen", episodes("seen", 1))], SUCCESS
    )
    gone = [dict(zip(LATENCY, ("gone", "3", "1.5", "1.0"), strict=True))]
    write_table(tmp_path / "out/latency.csv", gone, LATENCY)
    run_study(str(tmp_path / "study.yaml"), [], [], False)
    assert read_table(tmp_path / "out/latency.csv", LATENCY) == gone


def test_errors_of_a_study_name_their_place(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"

    def study(recipes: dict[str, Any], **more: Any) -> None:
        path.write_text(
            yaml.safe_dump(
                {
                    "recipes": recipes,
                    "benchmark": TABLETOP,
                    "out": "o",
                    "runs": str(tmp_path / "r"),
                    **more,
                },
                sort_keys=False,
            )
        )

    study({"a": {"config": "x.yaml", "init_from": "b"}, "b": {"config": "x.yaml"}})
    with pytest.raises(ConfigError, match=r"recipes\.a\.init_from='b': no recipe above it"):
        load_study(path)
    study({"a": {"config": "x.yaml", "policy": "p"}})
    with pytest.raises(ConfigError, match="exactly one of config"):
        load_study(path)
    study({"a": {"policy": "p", "plan_switch_margin": 8.0}})
    with pytest.raises(ConfigError, match="needs reuse_policy"):
        load_study(path)
    study({"a": {"policy": "p"}, "b": {"reuse_policy": "c", "plan_switch_margin": 8.0}})
    with pytest.raises(ConfigError, match=r"recipes\.b\.reuse_policy='c': no recipe above it"):
        load_study(path)
    study({"a": {"policy": "p"}}, pairs=[["a", "c"]])
    with pytest.raises(ConfigError, match="pairs: unknown recipe 'c'"):
        load_study(path)
    study({"a": {"policy": "p", "rollouts": False}, "b": {"config": "x.yaml", "init_from": "a"}})
    for only in ([], ["b"]):
        with pytest.raises(
            ConfigError, match=r"recipes\.a\.policy=p: no such folder; train it first"
        ):
            run_study(str(path), [], only, False)
    with pytest.raises(ConfigError, match="--only z: no such recipe"):
        run_study(str(path), [], ["z"], False)
    study({"a": {"policy": "p"}}, tasks=["fly"])
    with pytest.raises(ConfigError, match=r"tasks: .*no task or group 'fly'"):
        run_study(str(path), [], [], False)
    study({"a": {"config": "x.yaml", "made_by": "y.yaml"}})
    with pytest.raises(ConfigError, match="made_by needs policy"):
        load_study(path)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (
            "data.datasets.robot=nowhere",
            "recipes.later: nowhere: no such data folder; make it with `vla pack`",
        ),
        (
            "policy.vision={name: timm, model: tf_efficientnet_lite0, "
            "weights: package:no_wheel/a.pth}",
            "recipes.later: package:no_wheel: not installed",
        ),
        ("policy.headd=token", "policy.headd"),
    ],
)
def test_later_errors_are_found_before_the_first_training(
    wrong: str, message: str, tiny_run: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tiny_run))
    recipes = {"first": {"config": "run.yaml"}, "later": {"config": "run.yaml", "change": [wrong]}}
    plan = {
        "recipes": recipes,
        "benchmark": TABLETOP,
        "tasks": ["seen"],
        "out": str(tmp_path / "out"),
        "runs": str(tmp_path / "runs"),
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    with pytest.raises(ConfigError, match=re.escape(message)):
        run_study(str(tmp_path / "study.yaml"), [], [], False)
    assert not (tmp_path / "runs").exists()
