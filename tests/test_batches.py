"""Batches of a stream: validation, exact resume, mixture and padding."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from memory_data import MemorySource, make_episode, stream

from vla.data import pipeline
from vla.data.config import DataConfig, WindowConfig
from vla.data.pack import pack
from vla.data.pipeline import BatchStream
from vla.errors import ConfigError, DataError
from vla.training.monitor import row_sources
from vla.types import Batch


def test_validation_has_every_frame_once_over_ranks_and_workers(tmp_path: Path) -> None:
    pack(
        MemorySource([make_episode(i) for i in range(8)]),
        tmp_path,
        shard_size=2,
        val_fraction=0.5,
        progress=False,
    )
    counts: Counter[tuple[float, ...]] = Counter()
    for rank in range(2):
        loader = torch.utils.data.DataLoader(
            stream(tmp_path, train=False, rank=rank, world=2), batch_size=None, num_workers=2
        )
        for batch in loader:
            counts.update(
                tuple(a) for a in np.round(batch.robots[0].actions_KHA[:, 0].numpy(), 3).tolist()
            )
    assert len(counts) == 20 and set(counts.values()) == {1}


def fingerprint(batch: Batch) -> tuple[Any, ...]:
    found: list[Any] = []
    for part in batch.robots:
        found += [
            *part.sources,
            *part.instructions,
            *part.images_BVTCHW.float().mean((1, 2, 3, 4, 5)).tolist(),
        ]
    return (*found, *(batch.web.questions if batch.web else ()))


def test_all_processes_have_as_many_validation_batches(tmp_path: Path) -> None:
    source = MemorySource([make_episode(i) for i in range(8)])
    pack(source, tmp_path, shard_size=2, val_fraction=0.5, progress=False)  # 20 windows to validate
    shares = [stream(tmp_path, train=False, rank=r, world=3, batch_size=6) for r in range(3)]
    batches = [[(b.size, b.is_filler) for b in share] for share in shares]
    full, rest, filler = (2, False), (1, False), (1, True)
    assert batches == [[full] * 3 + [rest], [full] * 3 + [rest], [full] * 3 + [filler]]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_processes_and_workers_share_the_same_batches(
    tiny_data: dict[str, str], workers: int
) -> None:
    def rows(rank: int, world: int, workers: int = 0) -> list[Counter[Any]]:
        config = DataConfig(tiny_data, {"robot": 0.5, "web": 0.5}, shuffle=40)
        data = BatchStream(config, 5, True, start=3, rank=rank, world=world)
        loader = torch.utils.data.DataLoader(data, batch_size=None, num_workers=workers)
        return [Counter(fingerprint(batch)) for batch in islice(loader, 6)]

    whole = rows(0, 1)
    assert rows(0, 1, workers) == whole
    assert [a + b for a, b in zip(rows(0, 2, workers), rows(1, 2), strict=True)] == whole
    with pytest.raises(ConfigError, match="at least one row for each of 6 processes"):
        rows(0, 6)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than this machine's cores
@pytest.mark.parametrize(("workers", "after"), [(0, 6), (2, 6), (2, 7), (3, 7), (3, 8)])
def test_a_resumed_stream_continues_with_the_next_batch(
    tiny_data: dict[str, str],
    workers: int,
    after: int,
    rank: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "BATCHES_PER_RUN", 5)

    def run(start: int, count: int) -> list[tuple[Any, ...]]:
        config = DataConfig(tiny_data, {"robot": 0.5, "web": 0.5}, shuffle=40)
        data = BatchStream(config, 4, True, start=start, rank=rank, world=2)
        return [
            fingerprint(b)
            for b in islice(
                torch.utils.data.DataLoader(data, batch_size=None, num_workers=workers), count
            )
        ]

    whole = run(0, 14)
    assert run(after, 14 - after) == whole[after:] and len(set(whole)) == 14


def test_processes_and_seeds_have_different_rows(tiny_data: dict[str, str]) -> None:
    def first(**kw: int) -> tuple[Any, ...]:
        config = DataConfig(tiny_data, {"robot": 1.0}, shuffle=40)
        return fingerprint(next(iter(BatchStream(config, 4, True, **kw))))

    assert first() == first() and len({first(), first(rank=1, world=2), first(seed=1)}) == 3


def test_the_realised_mixture_follows_the_sampling_weights(tiny_data: dict[str, str]) -> None:
    data = BatchStream(DataConfig(tiny_data, {"robot": 0.75, "web": 0.25}, shuffle=40), 8, True)
    drawn = Counter(source for batch in islice(data, 100) for source in row_sources(batch))
    assert abs(drawn["robot"] / drawn.total() - 0.75) < 0.06
    with pytest.raises(DataError, match=r"data\.sampling_weights"):
        BatchStream(DataConfig(tiny_data, {"robto": 1.0}), 8, True)


def test_windows_are_padded_at_the_ends_of_an_episode(tmp_path: Path) -> None:
    pack(
        MemorySource([make_episode(i) for i in range(6)]),
        tmp_path,
        shard_size=2,
        val_fraction=0.5,
        progress=False,
    )
    window = WindowConfig(history=3, horizon=4)
    batches = list(stream(tmp_path, train=False, window=window, batch_size=1))
    first, last = batches[0].robots[0], batches[4].robots[0]
    assert first.images_BVTCHW.shape[:3] == (1, 1, 3)
    means = first.images_BVTCHW.float().mean((0, 1, 3, 4, 5))
    assert means[0] == means[1] == means[2]  # the first frame is repeated
    assert first.mask_KH.tolist() == [[True] * 4]
    assert last.mask_KH.tolist() == [[True, False, False, False]]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_hundreds_of_data_sets_need_little_memory(tmp_path: Path) -> None:
    source = MemorySource([make_episode(i, steps=40) for i in range(8)])
    pack(source, tmp_path / "d0", shard_size=2, val_fraction=0.0, progress=False)
    folders = {"d0": str(tmp_path / "d0")}
    for number in range(1, 500):
        folders[f"d{number}"] = str(shutil.copytree(tmp_path / "d0", tmp_path / f"d{number}"))
    weights = {name: 1.0 + (index % 7) for index, name in enumerate(folders)}
    robots = dict.fromkeys(folders, "arm")
    data = BatchStream(DataConfig(folders, weights, robots=robots, shuffle=4000), 32, True)
    batches, memory = iter(data), []
    for _ in range(6):
        used = Counter(s for batch in islice(batches, 100) for s in batch.robots[0].sources)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        memory.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
        assert len(used) > 450
    assert memory[-1] - memory[1] < 10, memory
    start = [fingerprint(b) for b in islice(BatchStream(data.config, 32, True, start=599), 1)]
    again = BatchStream(data.config, 32, True)
    assert start == [fingerprint(b) for b in islice(again, 599, 600)]
