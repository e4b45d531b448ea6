"""Shards to batches: shuffle, mix data sets, decode and collate. The stream is resumable.

Row ``i`` of every batch comes from lane ``i``, a random stream of its own. Lanes are divided into
runs of ``BATCHES_PER_RUN`` batches. A run of a lane depends only on (seed, number of the run, i):
not on the number of processes, which share the rows, nor of loader workers, which share the
batches. A resumed stream repeats one run without decoding instead of the whole stream.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
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
from vla.errors import ConfigError, DataError
from vla.types import Batch

BATCHES_PER_RUN = 1000
RARE = 20  # windows of a data set in a run of a lane, below which it has no shuffle buffer

_T = TypeVar("_T")
Pick = tuple[str, dict[str, Any], float]  # data set, undecoded window, seed of its decoding


class BatchStream(IterableDataset[Batch]):
    """Batches of one or several data sets: endless and shuffled in training, else one pass.

    Args:
        batch_size: image rows per batch, of all processes together.
        train: True: endless stream of the train split; False: windows of the val split once.
        start: batches of the endless stream that are skipped, to resume exactly.
        rank, world: number of this process and count of all processes; a process has the rows
            ``rank``, ``rank + world``... of every batch.
        limit: windows of each data set in one pass, evenly spread over it; None: all.

    Raises:
        ConfigError: fewer rows than processes.
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
        if batch_size < world:
            raise ConfigError(
                f"train.batch_size={batch_size}: at least one row for each of {world} processes"
            )
        self.config, self.batch_size, self.train, self.seed = config, batch_size, train, seed
        self.start, self.rank, self.world, self.limit = start, rank, world, limit
        self.own_rows = range(rank, batch_size, world)
        self.datasets = open_datasets(config)
        self.weights = _positive_weights(config)
        self.robots = {n: config.robots.get(n, n) for n in config.datasets}
        varied = train and config.augment != AugmentConfig()
        self.augment = config.augment if varied else None
        # Data sets of which a lane has few windows in a run; a buffer for each would need memory.
        total = sum(self.weights.values())
        self.rare = {n for n, w in self.weights.items() if w / total * BATCHES_PER_RUN < RARE}
        self.ends: dict[str, tuple[list[SampleRow], list[int]]] = {}  # samples, summed steps
        self.shards: dict[str, list[list[SampleRow]]] = {}  # training samples, filled when needed

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        if not self.train:
            yield from self._one_pass(worker, workers)
            return
        number, skip = divmod(self.start, BATCHES_PER_RUN)
        done = 0
        while True:
            for picks in self._run(number, skip):
                if done % workers == worker:
                    yield self._collate(picks)
                done += 1
            number, skip = number + 1, 0

    def _run(self, number: int, skip: int) -> Iterator[list[Pick]]:
        """The undecoded rows of this process in every batch of a run after the first ``skip``."""
        key = f"{self.seed}/{number}"
        rng = random.Random(key)
        names, weights = list(self.weights), list(self.weights.values())
        lanes: dict[tuple[int, str], Iterator[dict[str, Any]]] = {}
        seeds = {row: random.Random(f"{key}/{row}") for row in self.own_rows}
        for index in range(BATCHES_PER_RUN):
            drawn = rng.choices(names, weights, k=self.batch_size)
            picks: list[Pick] = []
            for row in self.own_rows:
                name = drawn[row]
                if (row, name) not in lanes and name not in self.rare:
                    lanes[row, name] = self._shuffled(name, random.Random(f"{key}/{row}/{name}"))
                item = (
                    self._single(name, seeds[row]) if name in self.rare else next(lanes[row, name])
                )
                picks.append((name, item, seeds[row].random()))
            if index >= skip:
                yield picks

    def _single(self, name: str, rng: random.Random) -> dict[str, Any]:
        """A random undecoded window of a random training sample; all are equally frequent."""
        if name not in self.ends:
            rows = [row for shard in self._shards(name) for row in shard]
            self.ends[name] = rows, list(accumulate(max(1, row.steps) for row in rows))
        rows, ends = self.ends[name]
        while True:
            (row,) = rng.choices(rows, cum_weights=ends)
            windows = [*self.datasets[name].windows([row])]
            if windows:  # a sample without instructions has none
                return rng.choice(windows)

    def _shards(self, name: str) -> list[list[SampleRow]]:
        """The training samples of a data set by shard."""
        if name not in self.shards:
            dataset = self.datasets[name]
            self.shards[name] = _by_shard(
                dataset, subset_rows(dataset.packed, self.config, "train")
            )
        return self.shards[name]

    def _shuffled(self, name: str, rng: random.Random) -> Iterator[dict[str, Any]]:
        """Endless, shuffled, undecoded windows of the training samples of one data set.

        The buffers of all lanes and data sets together have about ``shuffle`` windows.
        """
        share = self.weights[name] / sum(self.weights.values())
        size = max(2, round(self.config.shuffle * share / self.batch_size))
        windows = self.datasets[name].windows(_endless(self._shards(name), rng))
        return wds.filters._shuffle(windows, bufsize=size, initial=size // 2, rng=rng)

    def _one_pass(self, worker: int, workers: int) -> Iterator[Batch]:
        """Windows of the val split once, divided among processes and workers.

        All processes have as many batches, because FSDP needs all for each; see ``is_filler``.
        """
        slot, slots = self.rank * workers + worker, self.world * workers
        size = max(1, self.batch_size // self.world)
        total = 0
        last: tuple[str, dict[str, Any]] | None = None
        pending: list[tuple[str, dict[str, Any]]] = []
        for name in self.weights:
            dataset = self.datasets[name]
            rows = subset_rows(dataset.packed, self.config, "val")
            chosen = spread(dataset.windows(rows), sum(max(1, r.steps) for r in rows), self.limit)
            index = -1
            for index, item in enumerate(chosen):
                last = name, item
                if (total + index) % slots == slot:
                    rng = random.Random(f"{self.seed}/{name}/{index}")
                    pending.append((name, decode_window(item, dataset.window, rng)))
                if len(pending) == size:
                    yield collate(pending, self.robots)
                    pending = []
            total += index + 1
        if pending:
            yield collate(pending, self.robots)
        own, most = (-(-(total - s) // slots) for s in (slot, 0))
        if last is not None and -(-own // size) < -(-most // size):
            name, item = last
            window = decode_window(item, self.datasets[name].window, random.Random(0))
            yield replace(collate([(name, window)], self.robots), is_filler=True)

    def _collate(self, picks: list[Pick]) -> Batch:
        decoded = [
            (n, decode_window(item, self.datasets[n].window, random.Random(seed), self.augment))
            for n, item, seed in picks
        ]
        return collate(decoded, self.robots)


def _by_shard(dataset: PackedDataset, rows: Sequence[SampleRow]) -> list[list[SampleRow]]:
    """The training samples of every shard."""
    shards: dict[str, list[SampleRow]] = defaultdict(list)
    for row in rows:
        shards[row.shard].append(row)
    if not shards:
        raise DataError(f"{dataset.folder}: no training samples; {advice(dataset.folder)}")
    return list(shards.values())


def _endless(shards: Sequence[Sequence[SampleRow]], rng: random.Random) -> Iterator[SampleRow]:
    """Random shards, and all their samples in random order; every sample is equally frequent."""
    ends = list(accumulate(map(len, shards)))
    while True:
        (part,) = rng.choices(shards, cum_weights=ends)
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
