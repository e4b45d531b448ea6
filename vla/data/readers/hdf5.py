"""HDF5 demonstrations: robomimic and LIBERO (many in a file), ALOHA and ACT (one a file)."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vla.data.manifest import DataError
from vla.data.readers.base import Field, Frames, Recording, need


class Hdf5Reader:
    """A ``.hdf5``/``.h5`` file, or a folder of them. Fields are data set names below the demonstration, such as ``obs/agentview_rgb``.

    The formats have no control rate: ``fps`` is 0, and the mapping must say it.

    Raises:
        DataError: an unreadable file, or one without demonstrations.
    """

    format, fps, robot = "hdf5", 0.0, ""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.missing: list[str] = []
        files = [path] if path.is_file() else sorted(p for e in ("*.hdf5", "*.h5") for p in path.rglob(e))
        self.places: list[tuple[Path, str]] = []
        for file in files:
            with _open(file) as root:
                groups = [f"data/{n}" for n in root["data"]] if "data" in root else ["/"] if "action" in root else []
                self.places += [(file, g) for g in sorted(groups, key=_natural)]
        if not self.places:
            raise DataError(f"{path}: no demonstrations: expected data/demo_N (robomimic, LIBERO) or /action (ALOHA)")
        file, group = self.places[0]
        with _open(file) as root:
            self.fields = _fields(root[group])

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Recording:
        file, group = self.places[index]
        where = f"{file}: {group}"
        with _open(file) as root:
            demo = root[group]
            absent = [k for k in self.fields if k not in demo]
            if absent:
                raise DataError(
                    f"{where}: no {absent[0]!r}, which the first demonstration has; repair it, or skip bad episodes with --skip-bad"
                )
            numbers = {
                k: np.asarray(demo[k], np.float64).reshape(len(demo[k]), -1) for k, f in self.fields.items() if f.kind == "numbers"
            }
            lengths = {k: len(demo[k]) for k in self.fields}
            instruction = _instruction(root, demo)
        if len(set(lengths.values())) != 1:
            shown = ", ".join(f"{k} {n}" for k, n in lengths.items())
            raise DataError(f"{where}: columns of different lengths ({shown}); repair it, or skip bad episodes with --skip-bad")
        frames = {k: _pictures(file, f"{group}/{k}") for k, f in self.fields.items() if f.kind == "image"}
        return Recording(f"{index:07d}", next(iter(lengths.values())), self.fps, instruction, numbers, frames)


def _open(file: Path) -> Any:
    try:
        return need("h5py").File(file, "r")
    except OSError as error:
        raise DataError(
            f"{file}: not a whole HDF5 file ({error}); download it again, or skip bad episodes with --skip-bad"
        ) from error


def _natural(name: str) -> tuple[int, str]:
    digits = "".join(c for c in name if c.isdigit())
    return (int(digits) if digits else -1, name)


def _fields(demo: Any) -> dict[str, Field]:
    """Data sets with a row a step; pictures are (T, H, W, 3) bytes, or (T, length) encoded bytes under ``images``."""
    found: dict[str, Field] = {}
    steps = len(demo["actions"] if "actions" in demo else demo["action"])

    def visit(name: str, item: Any) -> None:
        if not hasattr(item, "shape") or not item.shape or item.shape[0] != steps or name.startswith("next_obs"):
            return
        raw = item.ndim == 4 and item.dtype == np.uint8
        packed = item.ndim == 2 and item.dtype == np.uint8 and "image" in name
        if raw or packed:
            found[name] = Field("image")
        elif item.dtype.kind in "fiub" and item.ndim <= 2:
            found[name] = Field("numbers", int(np.prod(item.shape[1:])) if item.ndim > 1 else 1)

    demo.visititems(visit)
    return found


def _instruction(root: Any, demo: Any) -> str:
    """LIBERO: ``problem_info`` on ``data``; others: an attribute or data set named like an instruction."""
    places = [demo.attrs, root.attrs] + ([root["data"].attrs] if "data" in root else [])
    for attributes in places:
        for name in ("language_instruction", "instruction", "task", "lang"):
            if name in attributes:
                return _text(attributes[name])
        if "problem_info" in attributes:
            info = json.loads(_text(attributes["problem_info"]))
            said = info.get("language_instruction", "")
            return " ".join(said) if isinstance(said, list) else str(said)
    return ""


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _pictures(file: Path, name: str) -> Frames:
    def frames(rows: Sequence[int]) -> Iterator[np.ndarray]:
        with _open(file) as root:
            data = root[name]
            for r in rows:
                row = np.asarray(data[r])
                if row.ndim == 3:
                    yield row
                    continue
                with Image.open(io.BytesIO(row.tobytes())) as image:  # padded at the end; decoders stop where the picture ends
                    yield np.asarray(image.convert("RGB"))

    return frames
