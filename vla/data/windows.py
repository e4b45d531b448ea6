"""Windows: the training samples that are cut from the episodes of a packed data set."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.augment import AugmentConfig, augmented
from vla.data.config import DataConfig, WindowConfig
from vla.data.images import decode_image
from vla.data.manifest import Manifest, load_manifest
from vla.data.relative import reference, relative_dims
from vla.data.samples import read_frame, read_json, read_steps
from vla.data.shards import iter_tar_samples
from vla.errors import DataError


@dataclass(frozen=True)
class PackedDataset:
    """One packed data set of a training run."""

    name: str
    folder: Path
    manifest: Manifest
    window: WindowConfig  # with the cameras of this data set
    relative_dims: tuple[int, ...] | None  # see ``relative_dims``; None: actions as packed

    def shards(self, split: str) -> list[str]:
        """Paths of the shards of ``train`` or ``val``."""
        return [str(self.folder / shard) for shard in self.manifest.splits[split]]

    def windows(self, urls: Iterator[dict[str, str]]) -> Iterator[dict[str, Any]]:
        """Undecoded windows of some shards, in order: one per frame, or per web sample."""
        for sample in iter_tar_samples(self.folder, urls):
            meta = read_json(sample)
            if meta["kind"] == "web":
                yield {"sample": sample, "meta": meta}
                continue
            for camera in self.window.cameras:
                if camera not in meta["cameras"]:
                    read_frame(sample, meta, camera, 0)  # raises with the choices
            steps, dims = read_steps(sample), self.relative_dims
            for t in range(len(steps["actions"])):
                origin = 0.0 if dims is None else reference(steps["state"][t], dims)
                yield {"sample": sample, "meta": meta, "steps": steps, "t": t, "origin": origin}


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
        folder, manifest = Path(path), load_manifest(path)
        cameras = camera_names(config, name, manifest)
        missing = [c for c in cameras if c not in manifest.cameras]
        if manifest.kind == "episode" and missing:
            raise DataError(
                f"{folder}: unknown camera {missing[0]!r}; it has {', '.join(manifest.cameras)}: "
                "name them in data.window.cameras (or data.cameras)"
            )
        dims = relative_dims(folder, manifest) if name in config.relative else None
        window = replace(config.window, cameras=cameras)
        found[name] = PackedDataset(name, folder, manifest, window, dims)
    return found


def camera_names(config: DataConfig, name: str, manifest: Manifest) -> tuple[str, ...]:
    """The cameras that the policy gets from a data set: the configured ones, or all."""
    return tuple(config.cameras.get(name, config.window.cameras)) or manifest.cameras


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
    total = len(steps["actions"])
    past = [max(0, t - k) for k in reversed(range(config.history))]
    ahead = np.arange(t, t + horizon)
    inside = ahead < total
    ahead = np.minimum(ahead, total - 1)
    images = [
        [decode_image(read_frame(sample, meta, c, p), sample["__key__"]) for p in past]
        for c in config.cameras
    ]
    if augment is not None:
        images = [list(augmented(np.stack(frames), augment, rng)) for frames in images]
    texts, actions, masks = [meta["instruction"]], [steps["actions"][ahead]], [inside]
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
    }
