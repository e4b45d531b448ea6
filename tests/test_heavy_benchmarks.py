"""Benchmarks with slow rendering and large environments: processes, few images, results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_policies import RecordingPolicy
from heavy_benchmark import STEPS, Heavy

from vla.benchmarks.base import EpisodeResult, Task
from vla.benchmarks.lazy_images import LazyImages
from vla.errors import EnvironmentFailed
from vla.evaluation.groups import comparison_rows, group_rows, group_summary
from vla.evaluation.results import read_results
from vla.evaluation.rollout import evaluate
from vla.evaluation.statistics import wilson


def policy(**spec: Any) -> RecordingPolicy:
    return RecordingPolicy(Heavy.action_space, **spec)


def drawn_steps(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()] if file.exists() else []


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("horizon", "history", "expected"), [(3, 1, [0, 3]), (4, 2, [0, 3, 4])])
def test_images_are_drawn_only_for_the_frames_of_a_policy_call(
    tmp_path: Path, workers: int, horizon: int, history: int, expected: list[int]
) -> None:
    file, model = tmp_path / "drawn", policy(horizon=horizon, history=history)
    benchmark = Heavy(file)
    results, _ = evaluate(
        model, benchmark, benchmark.tasks()[:1], 1, seed=0, workers=workers, progress=False
    )
    assert drawn_steps(file) == expected
    frames = model.calls[1].images[0, 0, :, 0, 0, 0].tolist()
    assert frames == list(range(horizon - history + 1, horizon + 1))
    assert [(r.steps, r.success) for r in results] == [(STEPS, True)]


def test_results_and_frames_of_processes_are_those_of_one_process() -> None:
    benchmark = Heavy()
    one, two = (
        evaluate(policy(), benchmark, benchmark.tasks(), 2, workers=n, videos=2, progress=False)
        for n in (0, 2)
    )
    assert one[0] == two[0] and len(one[0]) == 6
    assert np.array_equal(one[1], two[1]) and len(one[1]) == 2


def test_experts_are_evaluated_without_images(tmp_path: Path) -> None:
    benchmark = Heavy(tmp_path / "drawn")
    results, _ = evaluate(None, benchmark, benchmark.tasks(), 2, seed=1, workers=0, progress=False)
    assert [r.success for r in results] == [False] * 3 + [True] * 3
    assert drawn_steps(tmp_path / "drawn") == []


@pytest.mark.slow
def test_a_process_that_ends_is_one_line_with_the_fix() -> None:
    with pytest.raises(EnvironmentFailed, match=r"task 'crash'.*exit code 3.*fewer --workers"):
        evaluate(policy(), Heavy(), [Task("crash", "go")], 1, workers=1, progress=False)


def test_a_stopped_evaluation_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, rows = tmp_path / "results.json", tmp_path / "results.jsonl"
    benchmark, asked = Heavy(), {"policy": "p"}

    def run(identity: dict[str, str], limit: int | None = None) -> list[EpisodeResult]:
        model = policy()
        if limit is not None:
            predict = model.predict

            def stop(*arguments: Any, **named: Any) -> Any:
                if len(model.calls) == limit:
                    raise KeyboardInterrupt
                return predict(*arguments, **named)

            monkeypatch.setattr(model, "predict", stop)
        options: dict[str, Any] = {"num_envs": 1, "workers": 0, "progress": False}
        results, _ = evaluate(
            model, benchmark, benchmark.tasks(), 2, out, identity=identity, **options
        )
        calls.append(len(model.calls))
        return results

    calls: list[int] = []
    whole = run(asked)
    assert not rows.exists() and read_results(out) == whole
    with pytest.raises(KeyboardInterrupt):
        run(asked, limit=calls[0] // 2 + 1)
    assert len(rows.read_text().splitlines()) == 1 + 3  # the head and three episodes
    rows.write_text(rows.read_text() + '{"task": "a", "se')  # killed while it wrote
    assert run(asked) == whole and calls[1] == calls[0] / 2
    with pytest.raises(KeyboardInterrupt):
        run(asked, limit=calls[0] // 2 + 1)
    assert run({"policy": "other"}) == whole and calls[2] == calls[0]  # starts again
    assert json.loads(out.read_text())["groups"]["left"]["n"] == 2


def test_an_image_that_is_read_too_late_is_an_error() -> None:
    images = LazyImages({"top": lambda: np.zeros(1), "wrist": lambda: np.ones(1)})
    assert list(images) == ["top", "wrist"] and images["top"] is images["top"]
    images.expire()
    assert images["top"] == 0 and "back" not in images
    with pytest.raises(RuntimeError, match="'wrist' was not read before the next step"):
        images["wrist"]


def episodes(wins: dict[str, int], n: int) -> list[EpisodeResult]:
    return [EpisodeResult(t, s, "go", s < won, 1) for t, won in wins.items() for s in range(n)]


def test_groups_have_wilson_intervals_and_averages_stand_beside_published_rows() -> None:
    benchmark = Heavy()
    found = group_summary(benchmark, episodes({"a": 10, "b": 5, "c": 0}, 10))
    assert list(found) == ["left", "right", "mean of groups"]
    assert (found["right"]["low"], found["right"]["high"]) == wilson(5, 20)
    mean = found["mean of groups"]
    assert mean["success"] == (1.0 + 0.25) / 2 and mean["n"] == 30
    width = 0.5 * np.hypot(1 - found["left"]["low"], 0.25 - found["right"]["low"])
    assert mean["low"] == pytest.approx(0.625 - width) and mean["high"] <= 1
    assert group_rows(found)[2]["95 % interval"].startswith(f"{100 * mean['low']:.1f} to")
    theirs, ours = comparison_rows(benchmark, found, "mine")
    assert theirs["model"] == "theirs" and theirs["mean of groups"] == "30.0"
    assert ours["model"] == "mine" and ours["mean of groups"] == "62.5"
    part = group_summary(benchmark, episodes({"a": 10, "b": 5}, 10))
    assert list(part) == ["left"]  # a task of "right" is missing, so the average is, too
