"""Episodes for the doctor's checks, from packed shards or from a recorded data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.images import decode_image
from vla.data.manifest import NAME, load_manifest
from vla.data.robot import RobotSource
from vla.data.samples import read_frame, read_json, read_steps
from vla.data.shards import iter_tar_samples
from vla.errors import DataError
from vla.types import ActionSpace


@dataclass
class EpisodeView:
    """One episode; T rows."""

    key: str
    instruction: str
    fps: float  # rows per second
    actions: np.ndarray  # (T, A)
    state: np.ndarray | None  # (T, P)
    times: np.ndarray | None  # (T,) timestamps in seconds, if recorded
    cameras: tuple[str, ...]
    images: Callable[[str, Sequence[int]], list[np.ndarray]]  # (camera, rows) -> (H, W, 3) uint8
    split: str = "train"


@dataclass
class DatasetView:
    """A data set to examine."""

    name: str
    action_space: ActionSpace  # bounds may be infinite before packing
    episodes: Callable[[], Iterator[EpisodeView]]
    # Unreadable episode or missing files -> reason; complete after a pass over ``episodes``.
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the action dimensions."""
        return self.action_space.names

    @property
    def binary(self) -> tuple[str, ...]:
        """Names of the binary action dimensions."""
        return self.action_space.binary


def open_dataset(path: Path, source: RobotSource | None = None) -> DatasetView:
    """A folder of packed shards, or a recorded data set.

    Raises:
        DataError: web data, or a data set that cannot be opened.
    """
    if source is None and (path / NAME).is_file():
        return _packed(path)
    return _recorded(source or RobotSource(str(path), skip_missing=True))


def _packed(path: Path) -> DatasetView:
    manifest = load_manifest(path)
    if manifest.action_space is None:
        raise DataError(f"{path}: web images; expected robot episodes")

    def episodes() -> Iterator[EpisodeView]:
        for split, shards in manifest.splits.items():
            for sample in iter_tar_samples(path, iter([{"url": str(path / s)} for s in shards])):
                yield _packed_episode(sample, split)

    return DatasetView(str(path), manifest.action_space, episodes)


def _packed_episode(sample: dict[str, Any], split: str) -> EpisodeView:
    meta, steps = read_json(sample), read_steps(sample)

    def images(camera: str, rows: Sequence[int]) -> list[np.ndarray]:
        frames = (read_frame(sample, meta, camera, r) for r in rows)
        return [decode_image(frame, sample["__key__"]) for frame in frames]

    return EpisodeView(
        sample["__key__"],
        meta["instruction"],
        float(meta["fps"]),
        steps["actions"],
        steps.get("state"),
        None,
        tuple(meta["cameras"]),
        images,
        split,
    )


def _recorded(source: RobotSource) -> DatasetView:
    missing = {f"missing {n}": text for n, text in enumerate(source.reader.missing)}

    def episodes() -> Iterator[EpisodeView]:
        for index in range(len(source)):
            try:
                episode = _recorded_episode(source, index)
            except ValueError as error:
                dataset.unreadable[str(index)] = str(error)
                continue
            yield episode

    assert source.action_space is not None
    dataset = DatasetView(str(source.reader.path), source.action_space, episodes, missing)
    return dataset


def _recorded_episode(source: RobotSource, index: int) -> EpisodeView:
    """All recorded rows, also those that packing would drop."""
    recording, mapping = source.reader[index], source.mapping

    def images(camera: str, rows: Sequence[int]) -> list[np.ndarray]:
        return list(recording.frames[mapping.cameras[camera]](rows))

    numbers = recording.numbers
    return EpisodeView(
        recording.key,
        mapping.instruction(recording),
        mapping.fps,
        mapping.actions(recording, np.arange(recording.steps)),
        mapping.state.take(recording) if mapping.state else None,
        numbers["timestamp"][:, 0] if "timestamp" in numbers else None,
        tuple(mapping.cameras),
        images,
    )
