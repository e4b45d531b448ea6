"""Shards: round trips, interruption, damage, and the batches that come out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vla.data.manifest import BadSample, DataError, load_manifest, sha256, verify
from vla.data.pack import pack
from vla.data.pictures import decode_image, encode_image
from vla.data.pipeline import BatchStream, WindowConfig
from vla.data.samples import cut_frame, episode_to_sample, read_json, read_steps
from vla.data.sources import TabletopSource, WebSource
from vla.schema import ActionSpace, Batch, Episode
from vla.sim.scene import SceneConfig
from vla.web.questions import WebConfig

SPACE = ActionSpace(("a", "b"), ("m", "m"), (-1.0, -1.0), (1.0, 1.0))


def make_episode(index: int = 0, steps: int = 5) -> Episode:
    images = [encode_image(np.full((16, 16, 3), min(255, 40 * index + 8 * t), np.uint8)) for t in range(steps)]
    actions = np.stack([np.full(steps, index, np.float32), np.arange(steps, dtype=np.float32)], 1) / 10
    return Episode(f"{index:07d}", f"do thing {index}", {"top": images}, actions, state=actions * 2)


class Source:
    """Episodes in memory, each may be spoilt."""

    action_space: ActionSpace | None = SPACE

    def __init__(self, episodes: list[Episode]) -> None:
        self.episodes = episodes

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, index: int) -> Episode:
        return self.episodes[index]

    def describe(self) -> dict[str, Any]:
        return {"name": "memory", "size": 16}


def test_episode_round_trip() -> None:
    episode = make_episode(2)
    sample = episode_to_sample(episode)
    meta, arrays = read_json(sample), read_steps(sample)
    assert meta["instruction"] == "do thing 2" and np.array_equal(arrays["actions"], episode.actions)
    for t in range(5):
        assert cut_frame(sample, meta, "top", t) == episode.images["top"][t]
        assert abs(int(decode_image(cut_frame(sample, meta, "top", t), "x").mean()) - (80 + 8 * t)) <= 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda e: setattr(e, "instruction", " "), "empty instruction"),
        (lambda e: setattr(e, "actions", e.actions[:, :1]), r"shape \(5, 1\), expected \(5, 2\)"),
        (lambda e: e.actions.__setitem__((3, 1), np.nan), "actions has a NaN or infinite value at step 3"),
        (lambda e: setattr(e, "actions", e.actions[:0]), "no steps"),
        (lambda e: e.images["top"].pop(), "4 frames for 5 actions"),
        (lambda e: e.images.clear(), "no camera"),
    ],
)
def test_bad_episodes_are_refused_by_name(tmp_path: Path, spoil: Any, message: str) -> None:
    episode = make_episode(1)
    spoil(episode)
    with pytest.raises(BadSample, match=message) as error:
        pack(Source([make_episode(), episode]), tmp_path / "out", progress=False)
    assert "episode '0000001'" in str(error.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_zero_episodes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="zero episodes"):
        pack(Source([]), tmp_path, progress=False)


def test_statistics_are_the_pooled_truth(tmp_path: Path) -> None:
    episodes = [make_episode(i, steps=3 + i) for i in range(7)]
    manifest = pack(Source(episodes), tmp_path, shard_size=2, progress=False)
    every = np.concatenate([e.actions for e in episodes])
    assert np.allclose(manifest["statistics"]["actions"]["q99"], np.quantile(every.astype(np.float64), 0.99, axis=0))
    assert np.allclose(manifest["statistics"]["actions"]["std"], every.std(0), atol=1e-6)
    assert manifest["samples"] == 7 and manifest["steps"] == len(every)


def test_verify_names_the_flipped_shard(tmp_path: Path) -> None:
    pack(Source([make_episode(i) for i in range(6)]), tmp_path, shard_size=2, progress=False)
    assert verify(tmp_path) == []
    victim = tmp_path / "shard-000001.tar"
    data = bytearray(victim.read_bytes())
    data[700] ^= 1
    victim.write_bytes(data)
    problems = verify(tmp_path)
    assert len(problems) == 1 and "shard-000001.tar" in problems[0]


def stream(path: Path | str, **kw: Any) -> BatchStream:
    options: dict[str, Any] = {"batch_size": 4, "train": True, "shuffle": 20} | kw
    window = options.pop("window", WindowConfig())
    return BatchStream({"d": str(path)}, {"d": 1.0}, window, **options)


def test_missing_and_truncated_shards_unknown_camera(tmp_path: Path) -> None:
    pack(Source([make_episode(i) for i in range(6)]), tmp_path, shard_size=2, progress=False)
    with pytest.raises(DataError, match=r"unknown camera 'wrist'; it has top: name them in data\.window\.cameras"):
        stream(tmp_path, window=WindowConfig(cameras=("wrist",)))
    assert stream(tmp_path, window=WindowConfig(cameras=())).windows["d"].cameras == ("top",)  # none named: all
    shard = tmp_path / "shard-000000.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"shard-000000\.tar: damaged shard.*vla data verify"):
        list(islice(stream(tmp_path), 30))
    shard.unlink()
    with pytest.raises(DataError, match=r"shard-000000\.tar: shard is missing"):
        load_manifest(tmp_path)
    with pytest.raises(DataError, match="no such data folder"):
        load_manifest(tmp_path / "nowhere")


def test_unfinished_pack_is_not_readable_and_another_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(DataError, match="packing did not finish"):
        load_manifest(tmp_path / "x")
    pack(Source([make_episode()]), tmp_path / "y", progress=False)
    with pytest.raises(DataError, match="packed from something else"):
        pack(Source([make_episode(), make_episode(1)]), tmp_path / "y", progress=False)


def test_validation_sees_every_frame_once_over_ranks_and_workers(tmp_path: Path) -> None:
    pack(Source([make_episode(i) for i in range(8)]), tmp_path, shard_size=2, val_fraction=0.5, progress=False)
    seen: Counter[tuple[float, ...]] = Counter()
    for rank in range(2):
        loader = torch.utils.data.DataLoader(stream(tmp_path, train=False, rank=rank, world=2), batch_size=None, num_workers=2)
        for batch in loader:
            seen.update(tuple(a) for a in np.round(batch.robots[0].actions_KHA[:, 0].numpy(), 3).tolist())
    assert len(seen) == 20 and set(seen.values()) == {1}


def fingerprint(batch: Batch) -> tuple[Any, ...]:
    found: list[Any] = []
    for part in batch.robots:
        found += [*part.sources, *part.instructions, *part.images_BVTCHW.float().mean((1, 2, 3, 4, 5)).tolist()]
    return (*found, *(batch.web.questions if batch.web else ()))


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than this machine's cores
@pytest.mark.parametrize(("workers", "after"), [(0, 6), (2, 6), (2, 7), (3, 7), (3, 8)])
def test_a_resumed_stream_continues_with_the_next_batch(tiny_data: dict[str, str], workers: int, after: int, rank: int) -> None:
    def run(start: int, count: int) -> list[tuple[Any, ...]]:
        options = {"shuffle": 40, "chunk": 5, "start": start, "rank": rank, "world": 2}
        data = BatchStream(tiny_data, {"robot": 0.5, "web": 0.5}, WindowConfig(), 4, True, **options)
        return [fingerprint(b) for b in islice(torch.utils.data.DataLoader(data, batch_size=None, num_workers=workers), count)]

    whole = run(0, 14)
    assert run(after, 14 - after) == whole[after:] and len(set(whole)) == 14


def test_ranks_and_seeds_differ(tiny_data: dict[str, str]) -> None:
    def first(**kw: int) -> tuple[Any, ...]:
        return fingerprint(next(iter(BatchStream(tiny_data, {"robot": 1.0}, WindowConfig(), 4, True, shuffle=40, **kw))))

    assert first() == first() and len({first(), first(rank=1, world=2), first(seed=1)}) == 3


def test_realised_mixture(tiny_data: dict[str, str]) -> None:
    data = BatchStream(tiny_data, {"robot": 0.75, "web": 0.25}, WindowConfig(), 8, True, shuffle=40)
    list(islice(data, 100))
    assert abs(data.drawn["robot"] / sum(data.drawn.values()) - 0.75) < 0.06
    with pytest.raises(DataError, match=r"data\.mixture"):
        BatchStream(tiny_data, {"robto": 1.0}, WindowConfig(), 8, True)


def test_history_and_horizon(tmp_path: Path) -> None:
    pack(Source([make_episode(i) for i in range(4)]), tmp_path, shard_size=2, val_fraction=0.5, progress=False)
    window = WindowConfig(history=3, horizon=4)
    batches = list(stream(tmp_path, train=False, window=window, batch_size=1))
    first, last = batches[0].robots[0], batches[4].robots[0]
    assert first.images_BVTCHW.shape[:3] == (1, 1, 3)
    means = first.images_BVTCHW.float().mean((0, 1, 3, 4, 5))
    assert means[0] == means[1] == means[2]  # the first frame stands in for the past before it
    assert first.mask_KH.tolist() == [[True] * 4]
    assert last.mask_KH.tolist() == [[True, False, False, False]]


PACK = """
import sys
from vla.data.pack import pack
from vla.data.sources import TabletopSource
from vla.sim.scene import SceneConfig
pack(TabletopSource(SceneConfig(concepts=8, cards=(0, 0), skills=("pick",)), 60, size=32), sys.argv[1], 5, 0.1, False)
"""


def test_kill_minus_nine_during_pack_changes_nothing(tmp_path: Path) -> None:
    def hashes(folder: Path) -> dict[str, str]:
        return {p.name: sha256(p) for p in sorted(folder.iterdir())}

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
    from vla.web.knowledge import splits

    held_out = set(splits()["held_out_art"])
    source = TabletopSource(SceneConfig(), 30, size=32)
    shown = {art for i in range(30) for art in source[i].info["art"]}
    assert shown and not shown & held_out
    assert json.loads((Path(tiny_data["robot"]) / "manifest.json").read_text())["kind"] == "episode"


def test_web_source_answers_are_in_the_action_vocabulary() -> None:
    source = WebSource(WebConfig(concepts=8, web_only=False, size=32), 60)
    tests: Counter[str] = Counter()
    for i in range(60):
        for qa in source[i].qa:
            tests[qa.tests] += 1
            assert qa.question and qa.answer
            if qa.tests == "where":
                assert all(0 <= int(v) <= 255 for v in qa.answer.split())
    assert {"where", "what_at", "kind", "count", "list", "fact", "name"} <= set(tests)
