"""Episodes as the doctor sees them: from packed shards, or straight from a recorded data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.manifest import NAME, load_manifest
from vla.data.pictures import decode_image
from vla.data.robot import RobotSource
from vla.data.samples import cut_frame, read_json, read_steps
from vla.data.shards import untarred


@dataclass
class View:
    """One episode. times: seconds of its rows, where the format has them; picture(camera, row): (H, W, 3) uint8; split: train or val."""

    key: str
    instruction: str
    fps: float
    actions: np.ndarray
    state: np.ndarray | None
    times: np.ndarray | None
    cameras: tuple[str, ...]
    pictures: Callable[[str, Sequence[int]], list[np.ndarray]]
    split: str = "train"


@dataclass
class Patient:
    """A data set to look at. names, binary, low, high: of its action dims (bounds may be infinite before packing); state_names as far as known;
    broken: episodes that could not even be read, with the reason."""

    name: str
    names: tuple[str, ...]
    binary: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    views: Callable[[], Iterator[View]]
    broken: dict[str, str] = field(default_factory=dict)


def open_patient(path: Path, source: RobotSource | None = None) -> Patient:
    """Packed shards (a folder with a manifest), or a data set as recorded."""
    if source is None and (path / NAME).is_file():
        return _packed(path)
    return _recorded(source or RobotSource(str(path), skip_missing=True))


def _packed(path: Path) -> Patient:
    manifest = load_manifest(path)
    space = manifest["action_space"]
    if space is None:
        raise ValueError(f"{path}: web pictures, not robot episodes; the doctor looks at robot data")

    def views() -> Iterator[View]:
        for split, shards in manifest["splits"].items():
            for sample in untarred(path, iter([{"url": str(path / s)} for s in shards])):
                meta, steps = read_json(sample), read_steps(sample)

                def pictures(camera: str, rows: Sequence[int], sample: Any = sample, meta: Any = meta) -> list[np.ndarray]:
                    return [decode_image(cut_frame(sample, meta, camera, r), sample["__key__"]) for r in rows]

                yield View(
                    sample["__key__"], meta["instruction"], float(meta["fps"]), steps["actions"], steps.get("state"), None,
                    tuple(meta["cameras"]), pictures, split,
                )  # fmt: skip

    return Patient(str(path), tuple(space["names"]), tuple(space["binary"]), np.array(space["low"]), np.array(space["high"]), views)


def _recorded(source: RobotSource) -> Patient:
    space, plan = source.action_space, source.plan
    assert space is not None
    patient = Patient(
        str(source.reader.path), space.names, space.binary, np.array(space.low), np.array(space.high), lambda: iter(())
    )
    for n, text in enumerate(source.reader.missing):
        patient.broken[f"missing {n}"] = text

    def views() -> Iterator[View]:
        for index in range(len(source)):
            try:
                recording = source.reader[index]
                rows = np.arange(recording.steps)
                actions = plan.actions(recording, rows)
                state = plan.state.take(recording) if plan.state else None
            except ValueError as error:
                patient.broken[str(index)] = str(error)
                continue

            def pictures(camera: str, wanted: Sequence[int], recording: Any = recording) -> list[np.ndarray]:
                return list(recording.frames[plan.cameras[camera]](wanted))

            times = recording.numbers["timestamp"][:, 0] if "timestamp" in recording.numbers else None
            yield View(recording.key, plan.instruction(recording), plan.fps, actions, state, times, tuple(plan.cameras), pictures)

    patient.views = views
    return patient
