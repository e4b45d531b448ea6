"""``vla diagnose``: replay, success, preprocessing, server and adapters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from blob_data import DotPolicy, pack_recorded, pack_world, subject_of, write_world
from torch import nn

from vla.benchmarks.base import EpisodeResult
from vla.diagnose import closed_loop, serving
from vla.diagnose import lines as names
from vla.diagnose.windows import sample_windows
from vla.doctor.views import open_dataset
from vla.models.lora import LoraConfig, apply_finetuning
from vla.policies.bound import BoundPolicy


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_world(tmp_path_factory.mktemp("world") / "data", episodes=8)


def environment(right: Any) -> Any:
    """A replay that succeeds if the executed actions are ``right`` of the recorded ones."""
    steps = {
        "actions": np.array([[0.1, 0.2, 1.0], [0.3, -0.1, 0.0]], np.float32),
        "state": np.array([[0.5, 0.4, 1.0], [0.6, 0.6, 0.0]], np.float32),
    }

    def replay(*_: Any) -> Any:
        change = _[3]
        success = bool(np.allclose(change(steps), right(steps)))
        return [EpisodeResult("t", n, "go", success, 2) for n in range(8)], [], []

    return replay


@pytest.mark.parametrize(
    ("right", "verdict", "fault"),
    [
        (lambda s: s["actions"], "ok", ""),
        (lambda s: np.abs(s["actions"] - [0, 0, 1]) * np.sign([1, 1, 1]), "fail", ""),
        (lambda s: s["actions"] * [1, 1, -1] + [0, 0, 1], "fail", names.GRIPPER),
        (lambda s: s["actions"] - s["state"] * [1, 1, 0], "fail", names.ACTION_TYPE),
    ],
)
def test_replay_names_the_change_with_which_recorded_actions_succeed(
    right: Any, verdict: str, fault: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closed_loop, "replay", environment(right))
    monkeypatch.setattr(closed_loop, "_starts_are_recorded", lambda _: True)
    subject = subject_of(DotPolicy(data), data)
    (line,) = closed_loop.replayed(subject, {"name": "any"}, {0: 0, 1: 1})
    assert (line.verdict, line.fault) == (verdict, fault)


@pytest.mark.parametrize(
    ("shares", "verdict", "fault"),
    [
        ({"": 0.0, "a": 1.0, "b": 0.0}, "ok", ""),
        ({"": 0.9, "a": 0.9, "b": 0.9}, "warn", ""),
        ({"": 0.0, "a": 0.1, "b": 0.9}, "fail", names.INSTRUCTIONS),
        ({"": 0.0, "a": 0.0, "b": 0.0}, "warn", ""),
    ],
)
def test_success_is_compared_between_wordings(
    shares: dict[str, float],
    verdict: str,
    fault: str,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks = [SimpleNamespace(id=t, instruction=t) for t in ("a", "b")]
    benchmark = SimpleNamespace(name="toy", default_tasks=lambda: tasks)
    monkeypatch.setattr(closed_loop, "open_benchmark", lambda *_: benchmark)

    def evaluate(policy: Any, _: Any, tasks: Any, each: int, **__: Any) -> Any:
        said = policy.words("a")
        done = round(each * shares[said])
        return [SimpleNamespace(success=n < done) for _ in tasks for n in range(each)], []

    monkeypatch.setattr(closed_loop, "evaluate", evaluate)
    subject = subject_of(DotPolicy(data), data)
    (line,) = closed_loop.language_success(subject, {"name": "toy"}, 20)
    assert (line.verdict, line.fault) == (verdict, fault), line.finding


def test_another_image_fit_than_at_packing_is_named(tmp_path: Path) -> None:
    from vla.data.manifest import load_manifest
    from vla.diagnose.source import open_source

    raw = write_world(tmp_path / "raw", episodes=2)
    packed = pack_recorded(raw, tmp_path / "packed", size=16, image_format="jpeg")
    policy, episodes = DotPolicy(packed), list(open_dataset(packed).episodes())
    source = open_source(load_manifest(packed))
    (line,) = serving.preprocessing(subject_of(policy, packed), source, episodes)
    assert line.verdict == "ok"
    assert "differ by" in line.finding
    policy.spec = replace(policy.spec, image_fit="pad")
    (line,) = serving.preprocessing(subject_of(policy, packed), source, episodes)
    assert line.verdict == "fail"
    assert "(pad)" in line.finding and "(stretch)" in line.finding


def test_a_server_that_changes_actions_is_named(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vla.serve.service import PolicyService

    policy: Any = DotPolicy(data)
    windows = sample_windows(policy, list(open_dataset(data).episodes()), 16)
    (line,) = serving.server(windows)
    assert line.verdict == "ok"
    made = PolicyService.observation

    def darker(self: Any, *arguments: Any) -> Any:
        seen = dict(made(self, *arguments))
        return seen | {"images": {c: i // 3 for c, i in seen["images"].items()}}

    monkeypatch.setattr(PolicyService, "observation", darker)
    (line,) = serving.server(windows)
    assert line.verdict == "fail"


class Adapted(nn.Module):
    """A policy with one adapted layer."""

    def __init__(self, data: Path) -> None:
        super().__init__()
        self.specs = {"dot": DotPolicy(data).spec}
        self.layers = nn.Sequential(nn.Linear(2, 3))
        apply_finetuning(self.layers, True, LoraConfig(rank=2))
        for name, weight in self.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(weight)

    def uses_previous_plan(self, robot: str) -> bool:
        return False

    def samples(self, robot: str) -> bool:
        return False

    def uses_drafts(self, robot: str) -> bool:
        return False

    def predict(self, images: Any, texts: Any, robot: str, state_BTP: Any = None) -> Any:
        views = images.float().mean((2, 3, 4, 5)) / 255
        return self.layers(views)[:, None].detach().numpy(), [""] * len(texts)


def test_merged_adapters_are_compared(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = BoundPolicy(Adapted(data), "dot")
    windows = sample_windows(policy, list(open_dataset(data).episodes()), 16)
    (line,) = serving.merged_adapters(windows)
    assert line.verdict == "ok"
    assert "merging 1 adapters" in line.finding
    layer: Any = policy.policy.layers[0]
    monkeypatch.setattr(type(layer), "merge", lambda self: nn.init.zeros_(self.weight))
    (line,) = serving.merged_adapters(windows)
    assert line.verdict == "fail"
    assert torch.any(layer.weight != 0)  # the policy itself is unchanged
