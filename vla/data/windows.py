"""Windows: the training samples that are cut from the episodes of a packed data set."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.augment import AugmentConfig, augmented
from vla.data.config import DataConfig, WindowConfig
from vla.data.images import decode_image
from vla.data.index import SampleRow
from vla.data.manifest import Manifest
from vla.data.packed import PackedFolder, open_packed
from vla.data.relative import reference, relative_dims
from vla.data.row_texts import segments
from vla.data.samples import read_frame, read_instructions, read_json, read_steps
from vla.data.shards import read_samples
from vla.errors import DataError


@dataclass(frozen=True)
class PackedDataset:
    """One packed data set of a training run."""

    name: str
    folder: Path
    manifest: Manifest
    window: WindowConfig  # with the cameras of this data set
    relative_dims: tuple[int, ...] | None  # see ``relative_dims``; None: actions as packed
    packed: PackedFolder  # index and split

    def windows(self, rows: Iterable[SampleRow]) -> Iterator[dict[str, Any]]:
        """Undecoded windows of samples, in order: one per labelled frame, or per web sample.

        ``t`` is the step of a window, ``end`` the step before which its action chunk ends.
        """
        for sample in read_samples(self.folder, rows):
            meta = read_json(sample)
            if meta["kind"] == "web":
                yield {"sample": sample, "meta": meta}
                continue
            for camera in self.window.cameras:
                if camera not in meta["cameras"]:
                    read_frame(sample, meta, camera, 0)  # raises with the choices
            steps, dims = read_steps(sample), self.relative_dims
            texts = read_instructions(meta, len(steps["actions"]))
            ends = chunk_ends(texts, self.window.cross_instructions)
            for t, (text, end) in enumerate(zip(texts, ends, strict=True)):
                if not text.strip():
                    continue  # a step without instruction is not trained
                origin = 0.0 if dims is None else reference(steps["state"][t], dims)
                item = {"sample": sample, "meta": meta, "steps": steps, "origin": origin}
                yield item | {"t": t, "end": end, "text": text}


def open_datasets(config: DataConfig) -> dict[str, PackedDataset]:
    """The data sets of a configuration, by name.

    Raises:
        DataError: a data set is not packed, lacks a camera, or is unknown to ``data.relative``.
    """
    unknown = [n for n in config.relative if n not in config.datasets]
    if unknown:
        known = ", ".join(sorted(config.datasets))
        raise DataError(f"data.relative: no data set {unknown[0]!r}; there are {known}")
    found = {}
    for name, path in config.datasets.items():
        packed = open_packed(path)
        folder, manifest = packed.folder, packed.manifest
        cameras = camera_names(config, name, manifest)
        missing = [c for c in cameras if c not in manifest.cameras]
        if manifest.kind == "episode" and missing:
            known = f"{', '.join(manifest.cameras)}: name them in data.window.cameras"
            if not manifest.cameras:
                known = "no images: set data.window.cameras=[] and policy.state=true"
            raise DataError(
                f"{folder}: unknown camera {missing[0]!r}; it has {known} (or data.cameras)"
            )
        dims = relative_dims(folder, manifest) if name in config.relative else None
        window = replace(config.window, cameras=cameras)
        found[name] = PackedDataset(name, folder, manifest, window, dims, packed)
    return found


def chunk_ends(texts: Sequence[str], cross: bool = False) -> list[int]:
    """For each of T steps the step before which an action chunk from there ends.

    That is where the instruction changes, or T. cross: always T.
    """
    total = len(texts)
    starts = [] if cross else [n for n, _ in segments(texts)]
    ends = [*starts[1:], total]
    return [end for first, end in zip(starts or [0], ends, strict=True) for _ in range(first, end)]


def camera_names(config: DataConfig, name: str, manifest: Manifest) -> tuple[str, ...]:
    """The cameras that the policy gets from a data set: the configured ones, or all."""
    if name in config.cameras:
        return tuple(config.cameras[name])
    return tuple(config.window.cameras) or manifest.cameras


def decode_window(
    item: dict[str, Any],
    config: WindowConfig,
    rng: random.Random,
    augment: AugmentConfig | None = None,
) -> dict[str, Any]:
    """Images, texts and actions of one window, for ``collate``. augment: None for no changes."""
    sample, meta = item["sample"], item["meta"]
    if meta["kind"] == "web":
        qa, most = meta["qa"], config.max_texts_per_image
        qa = qa if len(qa) <= most else rng.sample(qa, most)
        return {"web": decode_image(sample["jpg"], sample["__key__"]), "qa": qa}
    steps, t, horizon = item["steps"], item["t"], config.horizon
    past = [max(0, t - k) for k in reversed(range(config.history))]
    ahead = np.arange(t, t + horizon)
    inside = ahead < item["end"]
    ahead = np.minimum(ahead, item["end"] - 1)
    images = [
        [decode_image(read_frame(sample, meta, c, p), sample["__key__"]) for p in past]
        for c in config.cameras
    ]
    if augment is not None:
        images = [list(augmented(np.stack(frames), augment, rng)) for frames in images]
    texts, actions, masks = [item["text"]], [steps["actions"][ahead]], [inside]
    plans = [meta["plans"][t] if meta["plans"] else ""]
    if meta["alternatives"] and "alternative_mask" in steps:
        usable = [k for k in range(len(meta["alternatives"])) if steps["alternative_mask"][t, k]]
        if len(usable) > config.max_texts_per_image - 1:
            usable = rng.sample(usable, config.max_texts_per_image - 1)
        for k in usable:
            texts.append(meta["alternatives"][k])
            plans.append(meta["alternative_plans"][k][t] if meta["alternative_plans"] else "")
            actions.append(steps["alternative_actions"][ahead, k])
            # A counterfactual label is valid in this state only. The later states of the episode
            # result from other actions.
            masks.append(np.arange(horizon) == 0)
    return {
        "images": images,
        "texts": texts,
        "plans": plans,
        "actions": np.array(actions) - item["origin"],
        "masks": np.array(masks),
        "state": steps["state"][past] if "state" in steps else None,
        "history": config.history,
    }
