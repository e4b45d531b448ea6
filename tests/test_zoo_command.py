"""``vla zoo``: the listing, and the measurement of policies."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from vla.cli.zoo import listing, show_listing, zoo
from vla.config.registry import _MISSING, slots
from vla.errors import ConfigError
from vla.training.measure import measure, show_measured
from vla.utils.device import resolve
from vla.utils.memory import peak_memory_mb


def test_every_component_and_preset_is_listed_with_a_description(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = listing()
    assert set(found) == {*slots(), "unavailable"}
    assert {"conv", "timm", "fused"} <= set(found["vision"]["components"])
    assert "qwen3_4b" in found["decoder"]["presets"]
    assert {"tabletop", "gym"} <= set(found["benchmark"]["components"])
    assert {"openpi", "openvla"} <= set(found["protocol"]["components"])
    assert {"robot", "tabletop"} <= set(found["source"]["components"])
    for slot, kinds in found.items():
        for kind, rows in kinds.items():
            for name, line in rows.items():
                described = len(line) > 10 and not line.startswith("name:")
                assert described, f"{slot} {kind} {name}: {line!r}"
    zoo(as_json=True)
    assert json.loads(capsys.readouterr().out) == found


def test_modules_without_their_dependency_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(_MISSING, "vla.serve.protocols.other", "needs the package other")
    show_listing()
    assert "needs the package other" in capsys.readouterr().out


def test_the_tasks_of_a_benchmark_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    zoo(tasks="tabletop", as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert {"id": "pick", "group": "skills", "instruction": ""} in rows
    zoo(tasks="tabletop")
    assert "tabletop, group emergent\n" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"tabeltop.*did you mean 'tabletop'"):
        zoo(tasks="tabeltop")


def test_measuring_needs_configurations() -> None:
    for arguments in ({"measure": True}, {"configs": ["configs/demo_token.yaml"]}):
        with pytest.raises(ConfigError, match="--measure and configurations belong together"):
            zoo(**arguments)


@pytest.mark.parametrize(
    "head", [{"name": "token"}, {"name": "flow", "steps": 2, "width": 32}], ids=["token", "flow"]
)
def test_a_policy_is_measured(
    head: dict[str, Any],
    tiny_run: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "400")  # wide enough for the times of a slow machine
    tiny_run["policy"] = tiny_run["policy"] | {"head": head}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tiny_run))
    row = measure(str(path), ["train.batch_size=2"], 2, "cpu")
    assert row["parameters"] == row["trainable"] > 10_000
    assert row["flops_step"] > 1e6 and row["batch"] == 2
    assert row["action_tokens"] == (8.0 if head["name"] == "token" else None)
    assert row["prefix_tokens"] == 64
    assert row["act_s"] > 0 and row["step_s"] > 0 and row["peak_memory_mb"] > 50
    show_measured([row], False)
    assert "image tokens" in capsys.readouterr().out


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_an_unavailable_device_is_refused_with_the_choices(device: str) -> None:
    with pytest.raises(ValueError, match=rf"--device {device}: .*; choose auto, cpu, or cuda"):
        resolve(device)
    assert resolve("cpu") == "cpu"
    assert resolve("auto") == ("cuda" if torch.cuda.is_available() else "cpu")


def test_peak_memory_does_not_include_the_parent_process() -> None:
    block = bytearray(b"x" * (400 * 2**20))
    code = "from vla.utils.memory import peak_memory_mb; print(peak_memory_mb())"
    command = [sys.executable, "-c", code]
    child = subprocess.run(command, check=True, capture_output=True, text=True)
    assert 5 < float(child.stdout) < peak_memory_mb() - 300 and len(block) > 0
