"""``vla diagnose`` on trained policies: a healthy run is silent, planted faults are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from blob_data import FAULTS, SIDE, pack_recorded, write_world

from vla.config import check
from vla.diagnose import lines as names
from vla.diagnose.report import run_diagnose
from vla.training.config import RunConfig
from vla.training.run import train

NAMED = {
    "gripper": names.GRIPPER,
    "video": names.VIDEO,
    "statistics": names.STATISTICS,
    "cameras": names.CAMERAS,
    "instructions": names.INSTRUCTIONS,
    "action type": names.ACTION_TYPE,
}


def packed(root: Path, fault: str) -> Path:
    name = fault or "healthy"
    return pack_recorded(write_world(root / f"raw {name}", fault, 40), root / name)


def trained(data: Path, folder: Path, steps: int = 1500) -> Path:
    """A tiny policy of images and instruction, trained on ``data``.

    It uses the instruction after about 500 steps; when, depends on the CPU's rounding.
    """
    sizes = {"n_embd": 48, "n_layer": 2, "n_head": 2, "n_positions": 256}
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    run: dict[str, Any] = {
        "policy": {
            "name": "vla",
            "vision": {"name": "conv", "widths": [16, 32], "blocks": [0, 0], "image_size": SIDE},
            "connector": {"name": "mlp"},
            "decoder": {
                "name": "causal",
                "vocab_size": 800,
                "config": {"model_type": "gpt2", **sizes, **dropout},
            },
            "head": "regression",
            "normalise": "quantiles",
        },
        "data": {
            "datasets": {"dot": str(data)},
            "sampling_weights": {"dot": 1.0},
            "window": {"cameras": [], "horizon": 2},
        },
        "output_dir": str(folder),
        "train": {"steps": steps, "val_every": steps, "save_every": steps},
        "trainer": {"accelerator": "cpu"},
        "optim": {"lr": 0.002, "warmup_steps": 30, "schedule": "cosine", "min_lr_ratio": 0.05},
    }
    train(check(run, RunConfig, ""), progress=False)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def healthy(root: Path) -> Path:
    return trained(packed(root, ""), root / "run")


def report(capsys: pytest.CaptureFixture[str], run: Path, data: Path | None = None) -> Any:
    capsys.readouterr()
    code = run_diagnose(run, data, {}, None, 256, 4, True, None)
    return {"code": code, **json.loads(capsys.readouterr().out)}


@pytest.mark.slow
def test_a_healthy_run_is_silent(healthy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys, healthy)
    shown = [line for line in found["lines"] if line["verdict"] != "ok"]
    assert (found["code"], found["faults"], shown) == (0, [], []), shown


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_other_data_is_named(
    fault: str, healthy: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = report(capsys, healthy, packed(root, fault))
    failed = {line["fault"] for line in found["lines"] if line["verdict"] == "fail"}
    assert (found["code"], failed - {""}) == (2, {NAMED[fault]}), found


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["video", "instructions"])
def test_a_fault_of_the_training_data_is_named(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(packed(tmp_path, fault), tmp_path / "run")
    found = report(capsys, run)
    failed = {line["fault"] for line in found["lines"] if line["verdict"] == "fail"}
    assert NAMED[fault] in failed, found


@pytest.mark.slow
def test_an_edited_robot_spec_is_named(healthy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = healthy / "policy" / "robot_spec.json"
    before = path.read_text(encoding="utf-8")
    saved = json.loads(before)
    statistics = saved["robots"]["dot"]["statistics"]["actions"]
    for key in ("q01", "q99"):
        statistics[key][0] *= 2
    try:
        path.write_text(json.dumps(saved), encoding="utf-8")
        found = report(capsys, healthy)
    finally:
        path.write_text(before, encoding="utf-8")
    assert names.STATISTICS in found["faults"]
