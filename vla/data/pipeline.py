"""Shards to batches, one function: shards → split by node → split by worker → untar → window → shuffle → decode → batch.

Training streams are resampled without end and seeded by (seed, rank, worker, chunk): a chunk is a fixed number of batches, so a resumed
run starts at its chunk and skips at most one chunk of undecoded windows. Validation is finite and sees every sample once.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset as wds
from torch.utils.data import IterableDataset, get_worker_info

from vla.data.augment import AugmentConfig, augmented
from vla.data.collate import collate
from vla.data.manifest import DataError, load_manifest
from vla.data.pictures import decode_image
from vla.data.relative import reference, relative_dims
from vla.data.samples import cut_frame, read_json, read_steps
from vla.data.shards import untarred
from vla.schema import Batch


@dataclass(frozen=True)
class WindowConfig:
    """cameras: in this order (none named: every camera the data has); history: frames ending now; horizon: actions from now on; segments: instructions or questions that
    share one image in one sequence (an episode's alternatives and a web sample's questions beyond that are drawn at random)."""

    cameras: tuple[str, ...] = ("top",)
    history: int = 1
    horizon: int = 1
    segments: int = 6


def seen_by(cameras: tuple[str, ...], manifest: dict[str, Any]) -> tuple[str, ...]:
    """The cameras that a policy sees: those named, or all."""
    return tuple(cameras) or tuple(manifest.get("cameras", ()))


def _windows(
    samples: Iterator[dict[str, Any]], config: WindowConfig, dims: tuple[int, ...] | None = None
) -> Iterator[dict[str, Any]]:
    """One undecoded item per frame of an episode, or per web sample. dims: see ``relative_dims``."""
    for sample in samples:
        meta = read_json(sample)
        if meta["kind"] == "web":
            yield {"sample": sample, "meta": meta}
            continue
        for camera in config.cameras:
            if camera not in meta["cameras"]:
                cut_frame(sample, meta, camera, 0)  # raises with the choices
        steps = read_steps(sample)
        for t in range(len(steps["actions"])):
            origin = 0.0 if dims is None else reference(steps["state"][t], dims)
            yield {"sample": sample, "meta": meta, "steps": steps, "t": t, "origin": origin}


def _decode(item: dict[str, Any], config: WindowConfig, rng: random.Random, augment: AugmentConfig | None = None) -> dict[str, Any]:
    """Pixels and the segments of one window. augment: None where nothing is to be changed."""
    sample, meta = item["sample"], item["meta"]
    if meta["kind"] == "web":
        qa = meta["qa"] if len(meta["qa"]) <= config.segments else rng.sample(meta["qa"], config.segments)
        return {"web": decode_image(sample["jpg"], sample["__key__"]), "qa": qa}
    steps, t, horizon = item["steps"], item["t"], config.horizon
    total = len(steps["actions"])
    past = [max(0, t - k) for k in reversed(range(config.history))]
    ahead = np.arange(t, t + horizon)
    inside = ahead < total
    ahead = np.minimum(ahead, total - 1)
    images = [[decode_image(cut_frame(sample, meta, c, p), sample["__key__"]) for p in past] for c in config.cameras]
    if augment is not None:
        images = [list(augmented(np.stack(frames), augment, rng)) for frames in images]
    texts, actions, masks = [meta["instruction"]], [steps["actions"][ahead]], [inside]
    plans = [meta["plans"][t] if meta["plans"] else ""]
    if meta["alternatives"] and "alternative_mask" in steps:
        usable = [k for k in range(len(meta["alternatives"])) if steps["alternative_mask"][t, k]]
        if len(usable) > config.segments - 1:
            usable = rng.sample(usable, config.segments - 1)
        for k in usable:
            texts.append(meta["alternatives"][k])
            plans.append(meta["alternative_plans"][k][t] if meta["alternative_plans"] else "")
            actions.append(steps["alternative_actions"][ahead, k])
            # a counterfactual label holds for this state only, not for the states the episode went on to
            masks.append(np.arange(horizon) == 0)
    state = steps["state"][past] if "state" in steps else None
    return {
        "images": images,
        "texts": texts,
        "plans": plans,
        "actions": np.array(actions) - item["origin"],
        "masks": np.array(masks),
        "state": state,
    }


class BatchStream(IterableDataset[Batch]):
    """The pipeline of one or several data sets.

    Args:
        datasets: name -> folder of shards. mixture: name -> sampling weight (training only). batch_size: image rows a batch.
        train: endless and shuffled, or one exact pass. split: ``train`` or ``val`` (by default as ``train`` says). limit: windows of each data set
        in a pass. start: batches already consumed (exact resume). robots: data set -> robot (its own name if not given). cameras: data set -> its
        cameras in order (``window.cameras`` if not given). relative: data sets whose actions are given as differences to the present state, see ``relative_dims``. augment: how
        pictures of robots are varied in training.
    """

    def __init__(
        self, datasets: dict[str, str], mixture: dict[str, float], window: WindowConfig, batch_size: int, train: bool,
        seed: int = 0, shuffle: int = 4000, chunk: int = 1000, start: int = 0, rank: int = 0, world: int = 1, limit: int | None = None,
        split: str | None = None, robots: dict[str, str] | None = None, cameras: dict[str, tuple[str, ...]] | None = None, relative: tuple[str, ...] = (),
        augment: AugmentConfig | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.folders = {name: Path(path) for name, path in datasets.items()}
        self.manifests = {name: load_manifest(path) for name, path in self.folders.items()}
        unknown = [n for n in mixture if n not in datasets]
        if unknown or not mixture or min(mixture.values()) < 0 or sum(mixture.values()) <= 0:
            raise DataError(f"data.mixture {mixture}: give non-negative weights for the data sets {sorted(datasets)}")
        self.robots = {n: n for n in datasets} | (robots or {})
        chosen = {n: (cameras or {}).get(n, window.cameras) for n in datasets}
        self.windows = {n: replace(window, cameras=seen_by(chosen[n], m)) for n, m in self.manifests.items()}
        for name, manifest in self.manifests.items():
            missing = [c for c in self.windows[name].cameras if manifest["kind"] == "episode" and c not in manifest["cameras"]]
            if missing:
                raise DataError(
                    f"{self.folders[name]}: unknown camera {missing[0]!r}; it has {', '.join(manifest['cameras'])}: name them in data.window.cameras (or data.cameras)"
                )
        unknown = [n for n in relative if n not in datasets]
        if unknown:
            raise DataError(f"data.relative: no data set {unknown[0]!r}; there are {', '.join(sorted(datasets))}")
        self.dims = {n: relative_dims(self.folders[n], self.manifests[n]) if n in relative else None for n in datasets}
        self.mixture = {n: w for n, w in mixture.items() if w > 0}
        self.window, self.batch_size, self.train, self.seed = window, batch_size, train, seed
        self.shuffle, self.chunk, self.start, self.rank, self.world, self.limit = shuffle, chunk, start, rank, world, limit
        self.augment = augment if train and augment != AugmentConfig() else None
        self.split = split or ("train" if train else "val")
        self.drawn: Counter[str] = Counter()  # image rows handed out by source, for the realised mixture

    def _shards(self, name: str) -> list[str]:
        split = self.manifests[name]["splits"][self.split]
        return [str(self.folders[name] / shard) for shard in split]

    def _cut(self, name: str, urls: Iterator[dict[str, str]]) -> Iterator[dict[str, Any]]:
        """Windows of some shards of one data set."""
        return _windows(untarred(self.folders[name], urls), self.windows[name], self.dims[name])

    def _undecoded(self, name: str, rng: random.Random) -> Iterator[dict[str, Any]]:
        """Endless, shuffled windows of one data set."""
        shards = self._shards(name)
        if not shards:
            raise DataError(f"{self.folders[name]}: no shards in its train split; pack more samples or smaller shards")
        urls = ({"url": shards[rng.randrange(len(shards))]} for _ in iter(int, 1))
        windows = self._cut(name, urls)
        return wds.filters._shuffle(windows, bufsize=self.shuffle, initial=self.shuffle // 2, rng=rng)

    def chunks(self, name: str, count: int, padded: bool = True) -> torch.Tensor:
        """(n, H, A) of the first ``count`` windows of the training split, undecoded; past an episode's end the last action again, or (not padded) NaN."""
        urls = iter([{"url": s} for s in self._shards(name)])
        found = []
        for item in islice(self._cut(name, urls), count):
            actions, t = item["steps"]["actions"], item["t"]
            ahead = t + np.arange(self.window.horizon)
            chunk = actions[np.minimum(ahead, len(actions) - 1)] - item["origin"]
            found.append(chunk if padded else np.where(ahead[:, None] < len(actions), chunk, np.nan))
        return torch.from_numpy(np.array(found)).float()

    def _chunk(self, number: int, worker: int, skip: int, count: int) -> Iterator[Batch]:
        """``count`` batches of one chunk of one worker; the first ``skip`` are drawn but not decoded."""
        rng = random.Random(f"{self.seed}/{self.rank}/{worker}/{number}")
        names, weights = list(self.mixture), list(self.mixture.values())
        streams = {n: self._undecoded(n, random.Random(rng.random())) for n in names}
        for index in range(count):
            picks = [(n, next(streams[n])) for n in rng.choices(names, weights, k=self.batch_size)]
            decode_rng = random.Random(rng.random())
            if index >= skip:
                self.drawn.update(n for n, _ in picks)
                yield collate([(n, _decode(i, self.windows[n], decode_rng, self.augment)) for n, i in picks], self.robots)

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        if not self.train:
            yield from self._finite(worker, workers)
            return
        # batch b is worker b % workers' batch b // workers; the DataLoader asks its process 0 first, so after a stop that one plays the next batch's worker
        worker = (worker + self.start) % workers
        done = (self.start - worker + workers - 1) // workers
        while True:
            number, skip = divmod(done, self.chunk)
            for batch in self._chunk(number, worker, skip, self.chunk):
                yield batch
                done += 1

    def _finite(self, worker: int, workers: int) -> Iterator[Batch]:
        """Every window of the validation split once, dealt out over ranks and workers."""
        slot, slots = self.rank * workers + worker, self.world * workers
        rng = random.Random(self.seed)
        pending: list[tuple[str, dict[str, Any]]] = []
        for name in self.mixture:
            urls = iter([{"url": s} for s in self._shards(name)])
            for index, item in enumerate(self._cut(name, urls)):
                if self.limit is not None and index >= self.limit:
                    break
                if index % slots == slot:
                    pending.append((name, _decode(item, self.windows[name], rng)))
                if len(pending) == self.batch_size:
                    yield collate(pending, self.robots)
                    pending = []
        if pending:
            yield collate(pending, self.robots)


__all__ = ["BatchStream", "WindowConfig", "collate"]
