"""Episodes for the doctor's checks, from packed shards or from a recorded data set."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.images import decode_image
from vla.data.leave_out import without
from vla.data.manifest import NAME
from vla.data.packed import open_packed
from vla.data.quarantine import attempt
from vla.data.robot import RobotSource
from vla.data.row_texts import first_text, varying
from vla.data.samples import read_frame, read_instructions, read_json, read_steps
from vla.errors import BadSample, DataError
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
    split: str = ""  # "train" or "val"; empty: not packed
    instructions: list[str] = field(default_factory=list)  # T texts if they change; or empty

    @property
    def texts(self) -> list[str]:
        """The different instructions of the episode that are not blank."""
        found = dict.fromkeys(self.instructions or [self.instruction])
        return [text for text in found if text.strip()]


@dataclass
class DatasetView:
    """A data set to examine."""

    name: str
    action_space: ActionSpace  # bounds may be infinite before packing
    episodes: Callable[[], Iterator[EpisodeView]]
    # Unreadable episode or missing files -> reason; complete after a pass over ``episodes``.
    unreadable: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what is left out or assumed
    state_names: tuple[str, ...] = ()  # names of the state dimensions; empty: unknown
    # Statistics of the actions in the manifest, see ``column_statistics``; None: not packed.
    statistics: dict[str, Any] | None = None
    # Action dimensions -> how to leave them out.
    leave_out: Callable[[Collection[str]], str] = lambda dims: "leave them out of mapping.action"

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
    packed = open_packed(path)
    manifest, space = packed.manifest, packed.manifest.action_space
    if space is None:
        raise DataError(f"{path}: web images; expected robot episodes")

    def episodes() -> Iterator[EpisodeView]:
        used: set[str] = set()
        for row, sample in zip(packed.index, packed.samples(), strict=True):
            key = f"{row.key} ({row.id})" if row.key in used else row.key
            used.add(key)
            try:
                yield _packed_episode(sample, key, packed.split_of(row))
            except ValueError as error:
                dataset.unreadable[key] = str(error)

    dataset = DatasetView(
        str(path),
        space,
        episodes,
        notes=manifest.notes,
        state_names=manifest.state_names,
        statistics=manifest.statistics["actions"],
    )
    source = manifest.identity.get("source", {})
    if source.get("name") == "robot" and "path" in source:
        advice = f"pack again without them; `vla doctor {source['path']}` prints the mapping"
        dataset.leave_out = lambda dims: advice
    return dataset


def _packed_episode(sample: dict[str, Any], key: str, split: str) -> EpisodeView:
    meta, steps = read_json(sample), read_steps(sample)

    def images(camera: str, rows: Sequence[int]) -> list[np.ndarray]:
        frames = (read_frame(sample, meta, camera, r) for r in rows)
        return [decode_image(frame, key) for frame in frames]

    return EpisodeView(
        key,
        meta["instruction"],
        float(meta["fps"]),
        steps["actions"],
        steps.get("state"),
        None,
        tuple(meta["cameras"]),
        images,
        split,
        varying(read_instructions(meta, len(steps["actions"]))),
    )


def _recorded(source: RobotSource) -> DatasetView:
    missing = {f"missing {n}": text for n, text in enumerate(source.reader.missing)}

    def episodes() -> Iterator[EpisodeView]:
        for index in range(len(source)):
            try:
                yield attempt(partial(_recorded_episode, source, index), source, index)
            except BadSample as error:
                dataset.unreadable[str(index)] = str(error)

    assert source.action_space is not None
    dataset = DatasetView(
        str(source.reader.path),
        source.action_space,
        episodes,
        missing,
        notes=tuple(source.notes),
        state_names=tuple(source.mapping.state.names if source.mapping.state else ()),
    )

    def leave_out(dims: Collection[str]) -> str:
        arguments = without(source.mapping, dims)
        return f"to leave them out: {arguments}" if arguments else "leave them out"

    dataset.leave_out = leave_out
    return dataset


def _recorded_episode(source: RobotSource, index: int) -> EpisodeView:
    """All recorded rows, also those that packing would drop.

    Raises:
        BadSample: it has no rows.
    """
    recording, mapping = source.reader[index], source.mapping
    if recording.steps < 1:
        raise BadSample(f"{source.reader.path}: episode {recording.key} has no rows; drop it")

    def images(camera: str, rows: Sequence[int]) -> list[np.ndarray]:
        frames = partial(source.images, recording, camera, rows)
        return attempt(lambda: list(frames()), source, index)

    numbers, texts = recording.numbers, mapping.instructions(recording)
    actions = mapping.actions(recording, np.arange(recording.steps))
    state = mapping.state.take(recording) if mapping.state else None
    widths = {"action": (actions, len(mapping.names))}
    if mapping.state and state is not None:
        widths["state"] = (state, len(mapping.state.names))
    for name, (values, width) in widths.items():
        if values.shape != (recording.steps, width):
            raise BadSample(
                f"{source.reader.path}: episode {recording.key}: {name} has shape {values.shape}, "
                f"expected ({recording.steps}, {width}); repair or drop the episode"
            )
    return EpisodeView(
        recording.key,
        first_text(texts),
        mapping.fps,
        actions,
        state,
        numbers["timestamp"][:, 0] if "timestamp" in numbers else None,
        tuple(mapping.cameras),
        images,
        instructions=varying(texts),
    )
