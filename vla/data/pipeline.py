"""Shards to batches: shuffle, mix data sets, decode and collate. The stream is resumable.

Worker ``w`` of ``n`` makes the batches ``w``, ``w + n``, ``w + 2n``... Its stream is divided into
runs of ``BATCHES_PER_RUN`` batches. A run depends only on (seed, rank, worker, number of the run).
So a resumed stream repeats one run without decoding instead of the whole stream.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, TypeVar

import webdataset as wds
from torch.utils.data import IterableDataset, get_worker_info

from vla.data.augment import AugmentConfig
from vla.data.collate import collate
from vla.data.config import DataConfig
from vla.data.index import SampleRow
from vla.data.packed import advice
from vla.data.subset import subset_rows
from vla.data.windows import PackedDataset, decode_window, open_datasets
from vla.errors import DataError
from vla.types import Batch

BATCHES_PER_RUN = 1000

_T = TypeVar("_T")


class BatchStream(IterableDataset[Batch]):
    """Batches of one or several data sets: endless and shuffled in training, else one pass.

    Args:
        batch_size: image rows per batch.
        train: True: endless stream of the train split; False: windows of the val split once.
        start: batches of the endless stream that are skipped, to resume exactly.
        rank, world: number of this process and count of all processes.
        limit: windows of each data set in one pass, evenly spread over it; None: all.

    Raises:
        DataError: a data set is unusable, or the sampling weights do not fit the data sets.
    """

    def __init__(
        self,
        config: DataConfig,
        batch_size: int,
        train: bool,
        seed: int = 0,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        limit: int | None = None,
    ) -> None:
        super().__init__()
        self.config, self.batch_size, self.train, self.seed = config, batch_size, train, seed
        self.start, self.rank, self.world, self.limit = start, rank, world, limit
        self.datasets = open_datasets(config)
        self.weights = _positive_weights(config)
        self.robots = {n: config.robots.get(n, n) for n in config.datasets}
        varied = train and config.augment != AugmentConfig()
        self.augment = config.augment if varied else None

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        if not self.train:
            yield from self._one_pass(worker, workers)
            return
        # Batch b is batch b // workers of worker b % workers. The DataLoader always starts with
        # its process 0. In a resumed stream, process 0 therefore acts as the next batch's worker.
        worker = (worker + self.start) % workers
        done = (self.start - worker + workers - 1) // workers
        while True:
            number, skip = divmod(done, BATCHES_PER_RUN)
            for batch in self._run(number, worker, skip):
                yield batch
                done += 1

    def _run(self, number: int, worker: int, skip: int) -> Iterator[Batch]:
        """One run of one worker; the first ``skip`` batches are drawn but not decoded."""
        rng = random.Random(f"{self.seed}/{self.rank}/{worker}/{number}")
        names, weights = list(self.weights), list(self.weights.values())
        streams = {n: self._shuffled(self.datasets[n], random.Random(rng.random())) for n in names}
        for index in range(BATCHES_PER_RUN):
            picks = [(n, next(streams[n])) for n in rng.choices(names, weights, k=self.batch_size)]
            decode_rng = random.Random(rng.random())
            if index >= skip:
                yield self._collate(picks, decode_rng)

    def _shuffled(self, dataset: PackedDataset, rng: random.Random) -> Iterator[dict[str, Any]]:
        """Endless, shuffled, undecoded windows of the training samples of one data set."""
        rows, size = subset_rows(dataset.packed, self.config, "train"), self.config.shuffle
        if not rows:
            raise DataError(f"{dataset.folder}: no training samples; {advice(dataset.folder)}")
        windows = dataset.windows(_endless(rows, rng))
        return wds.filters._shuffle(windows, bufsize=size, initial=size // 2, rng=rng)

    def _one_pass(self, worker: int, workers: int) -> Iterator[Batch]:
        """Windows of the val split once, divided among processes and workers."""
        slot, slots = self.rank * workers + worker, self.world * workers
        rng = random.Random(self.seed)
        pending: list[tuple[str, dict[str, Any]]] = []
        for name in self.weights:
            dataset = self.datasets[name]
            rows = subset_rows(dataset.packed, self.config, "val")
            chosen = spread(dataset.windows(rows), sum(max(1, r.steps) for r in rows), self.limit)
            for index, item in enumerate(chosen):
                if index % slots == slot:
                    pending.append((name, decode_window(item, dataset.window, rng)))
                if len(pending) == self.batch_size:
                    yield collate(pending, self.robots)
                    pending = []
        if pending:
            yield collate(pending, self.robots)

    def _collate(self, picks: list[tuple[str, dict[str, Any]]], rng: random.Random) -> Batch:
        decoded = [
            (n, decode_window(item, self.datasets[n].window, rng, self.augment))
            for n, item in picks
        ]
        return collate(decoded, self.robots)


def _endless(rows: Sequence[SampleRow], rng: random.Random) -> Iterator[SampleRow]:
    """Random shards, and all their samples in random order; every sample is equally frequent."""
    shards: dict[str, list[SampleRow]] = defaultdict(list)
    for row in rows:
        shards[row.shard].append(row)
    parts = list(shards.values())
    ends = list(accumulate(map(len, parts)))
    while True:
        (part,) = rng.choices(parts, cum_weights=ends)
        yield from rng.sample(part, len(part))


def spread(items: Iterator[_T], total: int, limit: int | None) -> Iterator[_T]:
    """``limit`` of about ``total`` items at even distances; None: all."""
    share = total if limit is None else min(limit, total)
    for index, item in enumerate(items):
        if index * share // total != (index - 1) * share // total:
            yield item


def _positive_weights(config: DataConfig) -> dict[str, float]:
    """The sampling weights above 0."""
    weights = config.sampling_weights
    unknown = [n for n in weights if n not in config.datasets]
    if unknown or not weights or min(weights.values()) < 0 or sum(weights.values()) <= 0:
        raise DataError(
            f"data.sampling_weights {weights}: "
            f"give non-negative weights for the data sets {sorted(config.datasets)}"
        )
    return {n: w for n, w in weights.items() if w > 0}
