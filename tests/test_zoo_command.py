"""``vla zoo``: everything is listed with a line about it, and policies are measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from vla.config import ConfigError
from vla.device import resolve
from vla.memory import peak_memory_mb
from vla.zoo import listing, measure, run_zoo, show_measured


def test_everything_is_listed_with_a_line_about_it(capsys: pytest.CaptureFixture[str]) -> None:
    found = listing()
    assert {"conv", "timm", "fused"} <= set(found["vision"]["components"]) and "qwen3_4b" in found["decoder"]["presets"]
    for slot, kinds in found.items():
        for rows in kinds.values():
            for name, words in rows.items():
                assert len(words) > 10 and not words.startswith("name:"), f"{slot} {name}: {words!r}"
    run_zoo([], False, True, 1, "cpu")
    assert json.loads(capsys.readouterr().out) == found
    with pytest.raises(ConfigError, match="--measure needs configurations"):
        run_zoo([], True, False, 1, "cpu")


@pytest.mark.parametrize("head", [{"name": "token"}, {"name": "flow", "steps": 2, "width": 32}], ids=["token", "flow"])
def test_a_policy_is_measured(
    head: dict[str, Any],
    tiny_run: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # a slow machine's figures are wider
    tiny_run["policy"] = tiny_run["policy"] | {"head": head}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tiny_run))
    row = measure(str(path), ["train.batch_size=2"], 2, "cpu")
    assert row["parameters"] == row["trainable"] > 10_000 and row["flops_step"] > 1e6 and row["batch"] == 2
    assert row["action_tokens"] == (8.0 if head["name"] == "token" else None) and row["prefix_tokens"] == 64
    assert 0 < row["act_s"] < 5 and 0 < row["step_s"] < 5 and row["peak_memory_mb"] > 50
    show_measured([row], False)
    assert "image tokens" in capsys.readouterr().out


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(ValueError, match=rf"--device {device}: .*; choose auto, cpu, or cuda"):
        resolve(device)
    assert resolve("cpu") == "cpu" and resolve("auto") == ("cuda" if torch.cuda.is_available() else "cpu")


def test_peak_memory_is_this_process_own() -> None:
    held = bytearray(b"x" * (400 * 2**20))  # more than a bare interpreter takes
    code = "from vla.memory import peak_memory_mb; print(peak_memory_mb())"
    found = float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert 5 < found < peak_memory_mb() - 300 and len(held) > 0
