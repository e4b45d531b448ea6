"""HDF5 files: their demonstrations, layouts, splits and instructions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.readers.base import need
from vla.data.readers.files import natural_key, reading, refuse_pointer
from vla.data.readers.hdf5_beside import instruction_beside, text_in
from vla.errors import BadSample, DataError

# Fields of the action, the first that a demonstration has in full.
_ACTIONS: tuple[tuple[str, ...], ...] = (
    ("actions",),
    ("action",),
    ("joint_action/vector",),  # RoboTwin
    ("action/cartesian_position", "action/gripper_position"),  # DROID
    ("action/joint_position", "action/gripper_position"),
)
_SPLITS = {"train": "train", "valid": "val"}  # robomimic's mask -> split


@dataclass(frozen=True)
class Demo:
    file: Path
    group: str
    split: str = ""
    error: str = ""  # why the file cannot be read


def _is_demo(name: str, item: Any) -> bool:
    """True for groups that have actions, or a number in their names."""
    return hasattr(item, "keys") and (bool(action_of(item)) or any(c.isdigit() for c in name))


def action_of(demo: Any) -> tuple[str, ...]:
    """The fields of a demonstration's action; empty if it has none."""
    found = (a for a in _ACTIONS if all(getattr(demo.get(k), "shape", None) for k in a))
    return next(found, ())


def open_demo(place: Demo) -> Any:
    if place.error:
        raise BadSample(place.error)
    refuse_pointer(place.file)
    try:
        return need("h5py").File(place.file, "r")
    except OSError as error:
        raise DataError(
            f"{place.file}: not a complete HDF5 file ({error}); "
            "download it again, or skip bad episodes with --skip-bad"
        ) from error


def demonstrations(file: Path) -> list[Demo]:
    """The demonstrations of a file; one with an error if it cannot be read."""
    try:
        with open_demo(Demo(file, "/")) as root, reading(str(file)):
            if action_of(root):
                return [Demo(file, "/")]
            if "data" not in root or not hasattr(root["data"], "keys"):
                return []
            splits = _masks(root)
            inner = {n: root["data"].get(n) for n in root["data"]}
            demos = [n for n, d in inner.items() if d is None or _is_demo(n, d)]
            names = sorted(demos, key=natural_key)
            return [Demo(file, f"data/{n}", splits.get(n, "")) for n in names]
    except ValueError as error:
        return [Demo(file, "/", error=str(error))]


def _masks(root: Any) -> dict[str, str]:
    """Demonstration -> split, from robomimic's ``mask``."""
    found: dict[str, str] = {}
    if "mask" in root and all(m in root["mask"] for m in _SPLITS):
        for mask, split in _SPLITS.items():
            found |= {bytes(n).decode(): split for n in np.asarray(root["mask"][mask])}
    return found


def instruction_of(root: Any, demo: Any, file: Path) -> str:
    """The instruction of an episode, from attributes, single texts or files beside it."""
    groups = [demo, root] + ([root["data"]] if "data" in root else [])
    for group in groups:
        if text := text_in(group.attrs):
            return text
    for group in groups[:2]:
        for name in ("language_instruction", "instruction", "language_raw", "language"):
            item = group.get(name)
            if item is not None and getattr(item, "shape", None) in ((), (1,)):
                value = item[()] if item.shape == () else item[0]
                return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return instruction_beside(file)
