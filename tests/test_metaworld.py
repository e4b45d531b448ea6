"""Meta-World MT50: tasks, published rows, recording and one whole chain."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import call, here  # noqa: F401
from conftest import REPOSITORY

from vla.benchmarks.base import SEED
from vla.evaluation.rollout import open_benchmark
from vla.testing import check_benchmark

NAME = "metaworld/mt50"


def test_the_tiers_and_the_published_averages_are_those_of_the_papers() -> None:
    benchmark = open_benchmark({"name": NAME})
    tasks = benchmark.tasks()
    assert Counter(t.group for t in tasks) == {"easy": 28, "medium": 11, "hard": 6, "very_hard": 5}
    texts = {t.id: t.instruction for t in tasks}
    assert len(set(texts.values())) == 50 and texts["push"] != texts["push-back"]
    shared = open_benchmark({"name": NAME, "instructions": "published"}).tasks()
    assert [t.id for t in shared] == list(texts) and len({t.instruction for t in shared}) == 49
    assert {t.instruction for t in shared if t.id.startswith("push-b")} == {texts["push"]}
    rows = {row.model: row.shares for row in benchmark.published()}
    averages = {m: round(s["published average"], 1) for m, s in rows.items()}
    assert averages["SmolVLA 0.45B"] == 57.3 and averages["pi0 3.5B"] == 47.9
    assert round(rows["SmolVLA 0.45B"]["task-weighted average"], 1) == 66.8
    assert round(rows["Diffusion Policy"]["task-weighted average"], 1) == 16.1
    assert benchmark.hold_action(np.array([1, 1, 1, 0.5])).tolist() == [0, 0, 0, 0.5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 8}, "benchmark.size: expected 16 to 1024, got 8"),
        ({"max_steps": 501}, "benchmark.max_steps: expected 1 to 500, got 501"),
        ({"images": "best"}, "images"),
    ],
)
def test_bad_options_are_one_clear_message(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_benchmark({"name": NAME, **options})
    with pytest.raises(ValueError, match="has one camera; the policy uses top, wrist"):
        open_benchmark({"name": NAME}, ("top", "wrist"))


@pytest.mark.slow
def test_the_benchmark_passes_the_checks_of_benchmarks() -> None:
    pytest.importorskip("metaworld")
    benchmark = check_benchmark(NAME, size=32, max_steps=8, policy_cameras=("front",))
    used, new = (benchmark.make_env(benchmark.select(["push"])[0]) for _ in range(2))
    before, after = (used.reset(seed=s)[0]["images"]["front"] for s in (SEED, SEED + 1))
    assert np.array_equal(after, new.reset(seed=SEED + 1)[0]["images"]["front"])
    assert not np.array_equal(before, after)  # another seed places puck and goal elsewhere
    for env in (used, new):
        env.close()


@pytest.mark.slow
def test_an_unknown_opengl_backend_is_one_line() -> None:
    pytest.importorskip("metaworld")
    record = [sys.executable, "-m", "vla", "record", NAME, "out", "--tasks", "reach"]
    environment = os.environ | {"MUJOCO_GL": "screen"}
    done = subprocess.run(record, env=environment, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 2 and "MUJOCO_GL=screen: expected" in done.stderr
    assert "Traceback" not in done.stderr and not (REPOSITORY / "out").exists()


@pytest.mark.slow
def test_image_settings_differ_and_are_named() -> None:
    pytest.importorskip("metaworld")
    images = {}
    for name in ("fast", "published"):
        benchmark = open_benchmark({"name": NAME, "images": name, "size": 64})
        env = benchmark.make_env(benchmark.tasks()[0])
        images[name] = env.reset(seed=0)[0]["images"]["corner2"]
        assert images[name].shape == (64, 64, 3)
        assert benchmark.facts()["images"] == f"{name}, 64 px"
        env.close()
    assert not np.array_equal(images["fast"], images["published"])


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_record_train_and_evaluate_two_tasks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("metaworld")
    two = ("--tasks", "drawer-close,reach")
    options = ("size=64", "--episodes", "2", *two)
    for workers in ("0", "2"):
        assert call("record", NAME, tmp_path / workers, *options, "--workers", workers) == 0
    one, other = (tmp_path / w / "shard-000000.tar" for w in ("0", "2"))
    assert one.read_bytes() == other.read_bytes()
    changes = ("train.steps=50", "train.batch_size=4", "policy.vision.image_size=64")
    data = f"data.datasets.robot={tmp_path / '0'}"
    config, run = "configs/metaworld_mt50.yaml", f"output_dir={tmp_path / 'run'}"
    assert call("train", config, data, *changes, run) == 0
    out = tmp_path / "eval"
    evaluated = ("eval", tmp_path / "run" / "policy", *two, "--episodes", "2", "max_steps=24")
    assert call(*evaluated, "--out", out, "--workers", "2") == 0
    printed = capfd.readouterr().out
    assert "2 of 50 tasks were evaluated" in printed and "images fast, 64 px" in printed
    results = json.loads((out / "results.json").read_text())
    assert [(r["task"], r["seed"]) for r in results["episodes"]] == [
        (task, SEED + k) for k in range(2) for task in ("drawer-close", "reach")
    ]
    assert results["facts"]["images"] == "fast, 64 px" and not (out / "results.jsonl").exists()
