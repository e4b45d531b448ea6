"""Summaries, tables and figures of studies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from study_rows import committed, episodes

from vla.benchmarks.base import Task
from vla.config import load_config
from vla.errors import ConfigError
from vla.experiments.study.averages import (
    columns_of,
    group_interval,
    group_share,
    ratio_interval,
)
from vla.experiments.study.config import load_study
from vla.experiments.study.figures import bars
from vla.experiments.study.report import report_tables, write_report
from vla.experiments.study.summaries import (
    SUCCESS,
    pack_bits,
    read_results,
    success_row,
    unpack_bits,
)
from vla.experiments.study.tables import pair_rows, readme_blocks, result_rows
from vla.training.run import RunConfig
from vla.utils.csv_tables import block, read_table, write_table


def test_bits_survive_the_summary() -> None:
    rng = np.random.default_rng(0)
    for count in (0, 1, 4, 250, 2000):
        bits = rng.random(count) < 0.3
        assert unpack_bits(pack_bits(bits), count).tolist() == bits.tolist()
    assert len(pack_bits([True] * 250)) == 63


def test_the_digest_detects_a_difference_in_steps() -> None:
    rows = episodes("seen", 3)
    row = success_row("a", "seen", rows)
    assert (row["successes"], row["episodes"], row["mean_steps"]) == (3, 10, "5.000")
    rows[1]["steps"], rows[2]["steps"] = 4, 6
    other = success_row("a", "seen", rows)
    assert other["outcomes"] == row["outcomes"] and other["mean_steps"] == row["mean_steps"]
    assert other["digest"] != row["digest"]


def test_the_interval_of_an_average_covers_it_at_its_level() -> None:
    truth = {
        "symbol": 0.3,
        "maths": 0.02,
        "category": 0.7,
        "language": 0.4,
        "country": 0.05,
        "person": 0.15,
    }
    tasks = [Task(t, column=t if t in ("symbol", "person") else "reasoning") for t in truth]
    target = np.mean([0.3, np.mean([0.02, 0.7, 0.4, 0.05]), 0.15])
    rng, inside = np.random.default_rng(0), 0
    for _ in range(300):
        success = {t: rng.random(60) < p for t, p in truth.items()}
        low, high = group_interval(success, tasks)
        share = group_share(success, tasks)
        assert share is not None and 0 <= low < share < high <= 1
        inside += low <= target <= high
    assert 0.92 < inside / 300 < 0.99


def test_tables_follow_from_the_summaries(tmp_path: Path) -> None:
    config = committed(tmp_path)
    results, tasks = read_results(tmp_path), config.selected_tasks()
    assert [t.id for t in columns_of(tasks)["reasoning"]] == ["maths", "category"]
    shares = {
        (r["recipe"], r["kind"], r["name"]): (r["percent"], r["low"], r["high"])
        for r in result_rows(config, results)
    }
    assert shares["good", "column", "seen"] == ("90.0", "59.6", "98.2")
    assert shares["good", "task", "maths"][0] == "40.0"
    assert shares["good", "column", "reasoning"][0] == "30.0"
    assert shares["good", "group", "generalisation"] == ("70.0", "48.9", "83.6")
    # a column each: symbol, reasoning, person
    assert shares["good", "group", "emergent"][0] == f"{100 * np.mean([0.7, 0.3, 0.5]):.1f}"
    assert shares["good", "questions", "all"][0] == "66.7"
    assert shares["good", "test", "name"][0] == "50.0"
    assert ("good", "task", "seen") not in shares  # a column of one task
    pairs = {r["group"]: r for r in pair_rows(config, results)}
    seen = pairs["seen"]
    assert [seen[k] for k in ("pairs", "first_percent", "second_percent", "ratio")] == [
        *(10, "90.0", "10.0", "9.00"),
    ]
    assert [seen[k] for k in ("only_first", "only_second", "p")] == [8, 0, "0.0078"]
    objects = [t for t in tasks if t.group == "generalisation"]
    good, bad = results.success["good"], results.success["bad"]
    low, high = ratio_interval(good, bad, objects)
    assert low < 7.0 < high  # (0.8 + 0.6) / (0.1 + 0.1)
    assert ratio_interval(good, good, objects) == (1.0, 1.0)  # episodes are drawn in pairs
    none = {t: np.zeros_like(bits) for t, bits in bad.items()}
    without = replace(results, success={"good": good, "bad": none})
    assert {r["ratio"] for r in pair_rows(config, without)} == {""}
    table = readme_blocks(config, results)["results"].splitlines()
    assert table[0] == "| recipe | seen, % | generalisation, % | emergent, % | questions, % |"
    assert table[2:] == ["| Good | 90.0 | 70.0 | 50.0 | 66.7 |", "| bad | 10.0 | 10.0 | 10.0 |  |"]


def test_summaries_of_other_episodes_are_rejected(tmp_path: Path) -> None:
    rows = [success_row(n, "seen", episodes("seen", 1, count)) for n, count in (("a", 3), ("b", 4))]
    write_table(tmp_path / "success.csv", rows, SUCCESS)
    with pytest.raises(ConfigError, match="different episodes of task 'seen'"):
        read_results(tmp_path)


def test_the_report_draws_and_fills_the_readme(tmp_path: Path) -> None:
    config = committed(tmp_path)
    recipes, success = config.recipes, read_results(tmp_path).success
    legends = [
        [text.get_text() for text in bars(c, success).axes[0].get_legend().get_texts()]
        for c in (
            config,
            replace(config, recipes=recipes | {"bad": replace(recipes["bad"], in_figure=False)}),
        )
    ]
    assert legends == [["Good", "bad"], ["Good"]]
    long = {
        n: replace(r, label=f"{n}, with a label that explains how it was trained")
        for n, r in recipes.items()
    }
    figure = bars(replace(config, recipes=long), success)
    figure.draw_without_rendering()
    place = figure.axes[0].get_legend().get_window_extent()
    assert 0 <= place.x0 < place.x1 <= figure.bbox.width and place.y1 <= figure.bbox.height
    page = tmp_path / "README.md"
    page.write_text("Found:\n\n<!-- results -->\n\nold\n\n<!-- /results -->\n")
    write_report(config)
    assert (tmp_path / "success.png").stat().st_size > 5000
    assert block(page, "results") == readme_blocks(config, read_results(tmp_path))["results"]
    assert {r["kind"] for r in read_table(tmp_path / "results.csv")} == {
        *("task", "column", "group", "test", "questions"),
    }


STUDIES = [
    *sorted(REPOSITORY.glob("experiments/**/study.yaml")),
    REPOSITORY / "configs/scaling/emergent_gpu.yaml",
]


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.parent.name)
def test_shipped_studies_are_valid(path: Path) -> None:
    config = load_study(path)
    assert config.selected_tasks()
    for recipe in config.recipes.values():
        if recipe.config:
            load_config(recipe.config, recipe.change, RunConfig)
        if recipe.made_by:
            other, name = load_study(recipe.made_by), Path(str(recipe.policy)).parent.name
            assert name in other.recipes
            assert recipe.policy == f"{other.runs}/{name}/policy"


@pytest.mark.slow
@pytest.mark.parametrize("path", STUDIES[:-1], ids=lambda p: p.parent.name)
def test_committed_tables_follow_from_the_summaries(path: Path, tmp_path: Path) -> None:
    config = load_study(path)
    here = replace(config, out=str(REPOSITORY / config.out))
    assert path.parent == Path(here.out)
    tables = report_tables(here)
    assert "results.csv" in tables
    for name, (rows, columns) in tables.items():
        write_table(tmp_path / name, rows, columns)
        assert (tmp_path / name).read_text() == (path.parent / name).read_text(), name
    for name, table in readme_blocks(here, read_results(path.parent)).items():
        assert block(path.parent / "README.md", name) == table
