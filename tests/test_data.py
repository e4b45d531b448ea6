"""Shards: round trips, interruption, damage, and the batches made from them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory_data import MemorySource, make_episode, stream

from vla.benchmarks.tabletop.scene import SceneConfig
from vla.benchmarks.tabletop.sources import TabletopSource, WebSource
from vla.benchmarks.tabletop.web.config import WebConfig
from vla.data.config import WindowConfig
from vla.data.images import decode_image
from vla.data.manifest import load_manifest
from vla.data.pack import pack
from vla.data.samples import episode_to_sample, read_frame, read_json, read_steps
from vla.data.verification import verify
from vla.errors import BadSample, DataError
from vla.utils.io import sha256


def test_episode_round_trip() -> None:
    episode = make_episode(2)
    sample = episode_to_sample(episode)
    meta, arrays = read_json(sample), read_steps(sample)
    assert meta["instruction"] == "do thing 2" and np.array_equal(
        arrays["actions"], episode.actions
    )
    for t in range(5):
        assert read_frame(sample, meta, "top", t) == episode.images["top"][t]
        assert (
            abs(int(decode_image(read_frame(sample, meta, "top", t), "x").mean()) - (80 + 8 * t))
            <= 2
        )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda e: setattr(e, "instruction", " "), "empty instruction"),
        (lambda e: setattr(e, "actions", e.actions[:, :1]), r"shape \(5, 1\), expected \(5, 2\)"),
        (
            lambda e: e.actions.__setitem__((3, 1), np.nan),
            "actions has a NaN or infinite value at step 3",
        ),
        (lambda e: setattr(e, "actions", e.actions[:0]), "no steps"),
        (lambda e: e.images["top"].pop(), "4 frames for 5 actions"),
        (lambda e: (e.images.clear(), setattr(e, "state", None)), "neither camera nor state"),
    ],
)
def test_invalid_episodes_are_refused(tmp_path: Path, spoil: Any, message: str) -> None:
    episode = make_episode(1)
    spoil(episode)
    with pytest.raises(BadSample, match=message) as error:
        pack(MemorySource([make_episode(), episode]), tmp_path / "out", progress=False)
    assert "episode '0000001'" in str(error.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_source_without_episodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="zero episodes"):
        pack(MemorySource([]), tmp_path, progress=False)


def test_statistics_are_those_of_all_rows(tmp_path: Path) -> None:
    episodes = [make_episode(i, steps=3 + i) for i in range(7)]
    manifest = pack(MemorySource(episodes), tmp_path, shard_size=2, progress=False)
    every = np.concatenate([e.actions for e in episodes])
    assert np.allclose(
        manifest.statistics["actions"]["q99"],
        np.quantile(every.astype(np.float64), 0.99, axis=0),
    )
    assert np.allclose(manifest.statistics["actions"]["std"], every.std(0), atol=1e-6)
    assert manifest.samples == 7 and manifest.steps == len(every)


def test_verify_finds_a_shard_with_a_flipped_bit(tmp_path: Path) -> None:
    pack(MemorySource([make_episode(i) for i in range(6)]), tmp_path, shard_size=2, progress=False)
    assert verify(tmp_path) == []
    victim = tmp_path / "shard-000001.tar"
    data = bytearray(victim.read_bytes())
    data[700] ^= 1
    victim.write_bytes(data)
    problems = verify(tmp_path)
    assert len(problems) == 1 and "shard-000001.tar" in problems[0]


def test_missing_shards_truncated_shards_and_unknown_cameras_are_refused(tmp_path: Path) -> None:
    pack(MemorySource([make_episode(i) for i in range(6)]), tmp_path, shard_size=2, progress=False)
    with pytest.raises(
        DataError, match=r"unknown camera 'wrist'; it has top: name them in data\.window\.cameras"
    ):
        stream(tmp_path, window=WindowConfig(cameras=("wrist",)))
    assert stream(tmp_path, window=WindowConfig(cameras=())).datasets["d"].window.cameras == (
        "top",
    )  # no camera configured: all
    shard = tmp_path / "shard-000000.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"shard-000000\.tar: damaged, \d+ bytes, the"):
        stream(tmp_path)
    shard.unlink()
    with pytest.raises(DataError, match=r"shard-000000\.tar: shard is missing"):
        load_manifest(tmp_path)
    with pytest.raises(DataError, match="no such data folder"):
        load_manifest(tmp_path / "nowhere")


def test_an_unfinished_pack_and_another_source_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(DataError, match="packing did not finish"):
        load_manifest(tmp_path / "x")
    pack(MemorySource([make_episode()]), tmp_path / "y", progress=False)
    with pytest.raises(DataError, match="packed from another source"):
        pack(MemorySource([make_episode(), make_episode(1)]), tmp_path / "y", progress=False)


PACK = """
import sys
from vla.data.pack import pack
from vla.benchmarks.tabletop.sources import TabletopSource
from vla.benchmarks.tabletop.scene import SceneConfig
scene = SceneConfig(concepts=8, cards=(0, 0), skills=("pick",))
pack(TabletopSource(scene, 60, size=32), sys.argv[1], 5, 0.1, False)
"""


@pytest.mark.slow
def test_packing_after_sigkill_gives_the_same_shards(tmp_path: Path) -> None:
    def hashes(folder: Path) -> dict[str, str]:
        return {p.name: sha256(p) for p in sorted(folder.iterdir()) if p.name != ".lock"}

    subprocess.run([sys.executable, "-c", PACK, str(tmp_path / "whole")], check=True)
    rng, killed = np.random.default_rng(), 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", PACK, str(tmp_path / "torn")])
        while not list((tmp_path / "torn").glob("shard-*")) and process.poll() is None:
            time.sleep(0.005)
        time.sleep(float(rng.uniform(0.0, 0.25)))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
    subprocess.run([sys.executable, "-c", PACK, str(tmp_path / "torn")], check=True)
    assert killed and hashes(tmp_path / "torn") == hashes(tmp_path / "whole")


def test_manifest_has_no_held_out_art(tiny_data: dict[str, str]) -> None:
    from vla.benchmarks.tabletop.web.concepts import splits

    held_out = set(splits()["held_out_art"])
    source = TabletopSource(SceneConfig(), 30, size=32)
    shown = {art for i in range(30) for art in source[i].info["tags"]}
    assert shown and not shown & held_out
    assert json.loads((Path(tiny_data["robot"]) / "manifest.json").read_text())["kind"] == "episode"


def test_web_source_answers_are_in_the_action_vocabulary() -> None:
    source = WebSource(WebConfig(concepts=8, include_web_only=False, size=32), 60)
    tests: Counter[str] = Counter()
    for i in range(60):
        for qa in source[i].qa:
            tests[qa.tests] += 1
            assert qa.question and qa.answer
            if qa.tests == "where":
                assert all(0 <= int(v) <= 255 for v in qa.answer.split())
    assert {"where", "what_at", "kind", "count", "list", "fact", "name"} <= set(tests)
