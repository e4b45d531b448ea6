"""Batches of a stream: validation, exact resume, mixture and padding."""

from __future__ import annotations

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
from vla.errors import DataError
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


def test_ranks_and_seeds_give_different_streams(tiny_data: dict[str, str]) -> None:
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
