"""A study trains, drives, asks and compares once, and says what its files say."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import REPOSITORY, TINY_POLICY

from vla.config import ConfigError, load_config
from vla.evaluate import Result
from vla.study.config import ANSWERS, EPISODES, PROVENANCE, TIMES, Recipe, StudyConfig, load_study, policy_of
from vla.study.figures import bars
from vla.study.report import (
    answer_table,
    cell_table,
    columns_of,
    pair_table,
    ratio_interval,
    read_episodes,
    report_text,
    success_table,
    suite_interval,
    suite_share,
    tables,
    write_report,
)
from vla.study.run import needed, run_study
from vla.tables import block, read_table, write_table


def test_a_study_runs_once_and_reports(tiny_run: dict[str, Any], tiny_data: dict[str, str], tmp_path: Path) -> None:
    run = tiny_run | {"train": tiny_run["train"] | {"steps": 2, "val_every": 2, "val_windows": 4}, "policy": TINY_POLICY}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    study = {
        "recipes": {
            "web": {"config": "run.yaml", "change": ["data.mixture={web: 1.0, robot: 0.0}"], "acts": False, "keep": True},
            "both": {"config": "run.yaml", "after": "web", "shown": "co-fine-tuned", "at": 0.5},
            "held": {"of": "both", "hold_plan": 8.0, "answers": False},
            "same": {"policy": str(tmp_path / "runs/both/policy"), "at": 1.0},
        },
        "cells": ["seen", "symbol"], "episodes": 1, "seed": 77, "vqa": tiny_data["web"], "questions": 6, "pairs": [["both", "same"]],
        "axis": "share of robot data", "latency": 3, "out": str(tmp_path / "out"), "runs": str(tmp_path / "runs"),
    }  # fmt: skip
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    run_study(str(path), [], ["web"], False)
    assert not (tmp_path / "out/episodes.csv").exists() and (tmp_path / "out/report.md").is_file()
    run_study(str(path), [], [], False)
    rows = read_table(tmp_path / "out/episodes.csv", EPISODES)
    assert [(r["recipe"], r["cell"]) for r in rows] == [(n, c) for n in ("both", "held", "same") for c in ("seen", "symbol")]
    assert {r["seed"] for r in rows} == {"77"}
    assert [r["success"] for r in rows[:2]] == [r["success"] for r in rows[4:]]  # the same policy, the same episodes
    text = (tmp_path / "out/report.md").read_text()
    assert "| co-fine-tuned | same | seen | 1 |" in text and "| web |" in text
    made = read_table(tmp_path / "out/provenance.csv", PROVENANCE)
    assert [(r["recipe"], r["step"], r["torch"]) for r in made] == [(n, "0", torch.__version__) for n in ("web", "both")]
    assert f"| co-fine-tuned | 0 | {made[1]['commit']} |" in text
    times = read_table(tmp_path / "out/latency.csv", TIMES)
    assert [(r["recipe"], r["at"]) for r in times] == [(n, str(k)) for k in range(3) for n in ("both", "held", "same")]
    assert all(float(r["ms"]) > 0 for r in times) and "| co-fine-tuned | " in text.split("Time to one action")[1]
    assert (tmp_path / "out/curves.png").stat().st_size > 5000
    write_table(tmp_path / "out/latency.csv", [{"recipe": "gone", "at": "0", "ms": "1.5"}], TIMES)
    run_study(str(path), [], [], False)
    assert [r["recipe"] for r in read_table(tmp_path / "out/latency.csv", TIMES)] == ["gone"]  # not timed again without it
    before = (tmp_path / "out/episodes.csv").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "runs")  # as in a fresh clone
    run_study(str(path), [], [], False)
    assert (tmp_path / "out/episodes.csv").stat().st_mtime_ns == before and not (tmp_path / "runs").exists()  # nothing again
    assert [r["step"] for r in read_table(tmp_path / "out/metrics_both.csv") if r["val/loss/robot"]] == ["2"]
    config = load_study(path)
    assert needed(config, list(config.recipes)) == []
    lines = (tmp_path / "out/episodes.csv").read_text().splitlines(keepends=True)
    (tmp_path / "out/episodes.csv").write_text("".join(line for line in lines if not line.startswith("both,symbol")))
    assert needed(config, ["both"]) == ["both"] and policy_of(config, "web") == tmp_path / "out/web"  # the web stage was kept
    shutil.rmtree(tmp_path / "out/web")
    assert needed(config, ["both"]) == ["web", "both"] and needed(config, ["same"]) == []


def test_episodes_of_another_study_are_taken_over(tmp_path: Path) -> None:
    def rows(name: str, seeds: range) -> list[dict[str, Any]]:
        return [
            {"recipe": name, "cell": cell, "seed": s, "success": s % 2, "steps": 5, "failed": 0}
            for cell in ("seen", "symbol")
            for s in seeds
        ]

    write_table(tmp_path / "first/episodes.csv", [*rows("good", range(7, 10)), *rows("other", range(7, 10))], EPISODES)
    (tmp_path / "first/good").mkdir()  # no policy in it: driving it would fail
    (tmp_path / "study.yaml").write_text(
        yaml.safe_dump(
            {
                "recipes": {"again": {"policy": str(tmp_path / "first/good")}},
                "cells": ["seen"],
                "episodes": 3,
                "seed": 7,
                "out": str(tmp_path / "second"),
                "runs": str(tmp_path / "r"),
            }
        )
    )
    with pytest.raises(Exception, match="first/good"):  # other scenes: it has to be driven
        run_study(str(tmp_path / "study.yaml"), ["seed=8"], [], False)
    run_study(str(tmp_path / "study.yaml"), [], [], False)
    found = read_table(tmp_path / "second/episodes.csv", EPISODES)
    assert [(r["recipe"], r["cell"], r["seed"], r["success"]) for r in found] == [
        ("again", "seen", "7", "1"), ("again", "seen", "8", "0"), ("again", "seen", "9", "1"),
    ]  # fmt: skip


def test_mistakes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"

    def study(recipes: dict[str, Any], **more: Any) -> None:
        path.write_text(yaml.safe_dump({"recipes": recipes, "out": "o", "runs": str(tmp_path / "r"), **more}, sort_keys=False))

    study({"a": {"config": "x.yaml", "after": "b"}, "b": {"config": "x.yaml"}})
    with pytest.raises(ConfigError, match=r"recipes\.a\.after='b': no recipe above it"):
        load_study(path)
    study({"a": {"config": "x.yaml", "policy": "p"}})
    with pytest.raises(ConfigError, match="either config"):
        load_study(path)
    study({"a": {"policy": "p", "hold_plan": 8.0}})
    with pytest.raises(ConfigError, match="give of"):
        load_study(path)
    study({"a": {"policy": "p"}, "b": {"of": "c", "hold_plan": 8.0}})
    with pytest.raises(ConfigError, match=r"recipes\.b\.of='c': no recipe above it"):
        load_study(path)
    study({"a": {"policy": "p"}}, pairs=[["a", "c"]])
    with pytest.raises(ConfigError, match="pairs: unknown recipe 'c'"):
        load_study(path)
    study({"a": {"policy": "p", "acts": False}, "b": {"config": "x.yaml", "after": "a"}})
    for only in ([], ["b"]):
        with pytest.raises(ConfigError, match=r"recipes\.a\.policy=p: no such folder; train it first"):
            run_study(str(path), [], only, False)
    with pytest.raises(ConfigError, match="--only z: no such recipe"):
        run_study(str(path), [], ["z"], False)


@pytest.mark.parametrize(
    "wrong, told",
    [
        ("data.datasets.robot=nowhere", "recipes.later: nowhere: no such data folder; make it with `vla pack`"),
        ("policy.vision={name: timm, model: tf_efficientnet_lite0, weights: package:no_wheel/a.pth}", "recipes.later: package:no_wheel: not installed"),
        ("policy.headd=token", "policy.headd"),
    ],
)  # fmt: skip
def test_what_would_end_a_study_later_is_told_before_it_starts(
    wrong: str, told: str, tiny_run: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tiny_run))
    recipes = {"first": {"config": "run.yaml"}, "later": {"config": "run.yaml", "change": [wrong]}}
    plan = {"recipes": recipes, "cells": ["seen"], "out": str(tmp_path / "out"), "runs": str(tmp_path / "runs")}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    with pytest.raises(ConfigError, match=re.escape(told)):
        run_study(str(tmp_path / "study.yaml"), [], [], False)
    assert not (tmp_path / "runs").exists()


def test_the_interval_of_an_average_has_the_average_in_it_as_often_as_it_says() -> None:
    truth = {"symbol": 0.3, "maths": 0.02, "category": 0.7, "language": 0.4, "country": 0.05, "person": 0.15}
    columns = [["symbol"], ["maths", "category", "language", "country"], ["person"]]
    target = np.mean([np.mean([truth[c] for c in members]) for members in columns])
    rng, inside = np.random.default_rng(0), 0
    for _ in range(300):
        episodes = {c: [Result(s, c, "", bool(w), 5) for s, w in enumerate(rng.random(60) < p)] for c, p in truth.items()}
        low, high = suite_interval(episodes, list(truth))
        share = suite_share(episodes, list(truth))
        assert share is not None and 0 <= low < share < high <= 1
        inside += low <= target <= high
    assert 0.92 < inside / 300 < 0.99


def test_tables_say_what_the_files_say(tmp_path: Path) -> None:
    cells = ["seen", "objects_easy", "objects_hard", "symbol", "maths", "category", "person"]
    wins = {"good": dict(zip(cells, (9, 8, 6, 7, 4, 2, 5), strict=True)), "bad": dict.fromkeys(cells, 1)}
    rows = [
        {"recipe": name, "cell": cell, "seed": s, "success": int(s < n), "steps": 5, "failed": 0}
        for name, by_cell in wins.items() for cell, n in by_cell.items() for s in range(10)
    ]  # fmt: skip
    write_table(tmp_path / "episodes.csv", rows, EPISODES)
    answers = [
        {"recipe": "good", "test": t, "key": "0", "question": "", "right": r} for t, r in (("name", 1), ("name", 0), ("where", 1))
    ]
    write_table(tmp_path / "answers.csv", answers, ANSWERS)
    recipes = {"good": Recipe(policy="a", shown="Good"), "bad": Recipe(policy="b")}
    config = StudyConfig(recipes, str(tmp_path), str(tmp_path / "r"), cells, 10, pairs=[("good", "bad")])
    episodes = read_episodes(tmp_path)
    assert columns_of(cells)["reasoning"] == ["maths", "category"]
    lines = success_table(config, episodes).splitlines()
    assert lines[0].split(" | ")[1:5] == ["seen", "objects easy", "objects hard", "**generalisation**"]
    assert "| Good | 90.0 (60 to 98) |" in lines[2] and "| **70.0** (49 to 84) |" in lines[2]
    assert f"| **{100 * np.mean([0.7, 0.3, 0.5]):.1f}** (" in lines[2]  # symbol, reasoning, person: a column each
    assert cell_table(config, episodes).splitlines()[2] == "| Good | 40.0 (17 to 69) | 20.0 (6 to 51) |"  # maths, category
    assert cell_table(replace(config, cells=["seen", "maths"]), episodes) == ""
    pairs = pair_table(config, episodes)
    assert "| Good | bad | seen | 10 | 90.0 | 10.0 | 9.00 (" in pairs and "| 8 | 0 | 0.0078 |" in pairs
    low, high = ratio_interval(episodes["good"], episodes["bad"], ["objects_easy", "objects_hard"])
    assert low < 7.0 < high  # (0.8 + 0.6) / (0.1 + 0.1)
    assert ratio_interval(episodes["good"], episodes["good"], ["seen"]) == (1.0, 1.0)  # the same episodes of both are drawn
    none = {cell: [replace(r, success=False) for r in found] for cell, found in episodes["bad"].items()}
    assert "second won none" in pair_table(config, {"good": episodes["good"], "bad": none})
    assert "| Good | 66.7 (21 to 94) | 50.0 | 100.0 |" in answer_table(config, read_table(tmp_path / "answers.csv", ANSWERS))
    legends = [
        [text.get_text() for text in bars(c, episodes).axes[0].get_legend().get_texts()]
        for c in (config, replace(config, recipes=recipes | {"bad": replace(recipes["bad"], drawn=False)}))
    ]
    assert legends == [["Good", "bad"], ["Good"]]
    wordy = {n: replace(r, shown=f"{n}, with a name that says much of how it was trained") for n, r in recipes.items()}
    figure = bars(replace(config, recipes=wordy), episodes)
    figure.draw_without_rendering()
    place = figure.axes[0].get_legend().get_window_extent()
    assert 0 <= place.x0 < place.x1 <= figure.bbox.width and place.y1 <= figure.bbox.height  # nothing of it is cut off
    (tmp_path / "README.md").write_text("Found:\n\n<!-- pairs -->\n\nold\n\n<!-- /pairs -->\n")
    write_report(config)
    assert (tmp_path / "success.png").stat().st_size > 5000 and "McNemar" in (tmp_path / "report.md").read_text()
    assert block(tmp_path / "README.md", "pairs") == pairs


STUDIES = [*sorted(REPOSITORY.glob("experiments/**/study.yaml")), REPOSITORY / "configs/scaling/emergent_gpu.yaml"]


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.parent.name)
def test_committed_studies_are_whole(path: Path) -> None:
    from vla.train import RunConfig

    config = load_study(path)
    for recipe in config.recipes.values():
        if recipe.config:
            load_config(path.parent / recipe.config, recipe.change, RunConfig)
    folder = REPOSITORY / config.out
    if (folder / "report.md").is_file():
        here = replace(config, out=str(folder))
        assert report_text(here) == (folder / "report.md").read_text()
        for name, table in tables(here).items():
            assert block(folder / "README.md", name) == table
