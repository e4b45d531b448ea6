"""``vla record``: episodes per task, seeds, reuse of environments, and interruptions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from heavy_benchmark import Heavy

from vla.benchmarks.recording import BenchmarkSource, record
from vla.config.registry import _REGISTRY, registered
from vla.data.packed import iter_samples
from vla.data.samples import read_json


@pytest.fixture(autouse=True)
def heavy() -> Iterator[None]:
    registered("benchmark")
    _REGISTRY["benchmark"]["heavy"] = Heavy
    yield
    del _REGISTRY["benchmark"]["heavy"]


def infos(folder: Path) -> list[dict[str, Any]]:
    samples = [read_json(s) for split in ("train", "val") for s in iter_samples(folder, split)]
    return [sample["info"] for sample in samples]


def test_every_task_has_the_asked_number_of_episodes_with_seeds_of_its_own(tmp_path: Path) -> None:
    manifest = record("heavy", tmp_path, 7, ["a", "right"])
    found = infos(tmp_path)
    assert manifest.samples == 21 and Counter(i["task"] for i in found) == dict.fromkeys("abc", 7)
    assert len({(i["task"], i["seed"]) for i in found}) == 21
    assert all(i["seed"] % 2 == 0 for i in found)  # the expert fails with odd seeds


def test_an_environment_is_reused_for_episodes_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    make_env = Heavy.make_env
    monkeypatch.setattr(
        Heavy, "make_env", lambda self, task: opened.append(task.id) or make_env(self, task)
    )
    source = BenchmarkSource({"name": "heavy"}, 15, in_a_row=2)
    opened.clear()
    order = [source[n].info["task"] for n in range(15)]
    assert "".join(order) == "aabbcc" * 2 + "abc"  # every task has five
    assert opened == list("abcabcabc")
    single = BenchmarkSource({"name": "heavy"}, 15)
    places = {(e.info["task"], e.info["seed"]) for e in map(source.__getitem__, range(15))}
    assert places == {(e.info["task"], e.info["seed"]) for e in map(single.__getitem__, range(15))}


def test_an_interrupted_recording_continues_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = record("heavy", tmp_path / "whole", 25)
    assert len(whole.shards) == 2
    get = BenchmarkSource.__getitem__

    def stop(self: BenchmarkSource, index: int) -> Any:
        if index == 65:
            raise KeyboardInterrupt
        indices.append(index)
        return get(self, index)

    indices: list[int] = []
    monkeypatch.setattr(BenchmarkSource, "__getitem__", stop)
    with pytest.raises(KeyboardInterrupt):
        record("heavy", tmp_path / "part", 25)
    monkeypatch.setattr(BenchmarkSource, "__getitem__", get)
    again = record("heavy", tmp_path / "part", 25)
    assert [s.sha256 for s in again.shards] == [s.sha256 for s in whole.shards]
    manifests = [
        json.loads((tmp_path / n / "manifest.json").read_text()) for n in ("whole", "part")
    ]
    assert manifests[0] == manifests[1] and indices[-1] == 64
