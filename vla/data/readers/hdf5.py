"""HDF5 demonstrations: robomimic and LIBERO (many in a file), ALOHA and ACT (one a file)."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vla.config.registry import register
from vla.data.readers.base import Field, Frames, Reader, Recording, need
from vla.data.readers.files import SKIP_BAD
from vla.errors import DataError

_SUFFIXES = (".hdf5", ".h5")


@register("reader", "hdf5")
class Hdf5Reader(Reader):
    """A ``.hdf5`` or ``.h5`` file, or a folder of them.

    Fields are data set names inside a demonstration, such as ``obs/agentview_rgb``. The formats
    do not record the rows per second.

    Raises:
        DataError: an unreadable file, or one without demonstrations.
    """

    format, layout, order = "hdf5", "*.hdf5, *.h5", 30

    @classmethod
    def detects(cls, path: Path) -> bool:
        """True for an HDF5 file, or a folder with one at any depth."""
        files = path.rglob("*") if path.is_dir() else [path]
        return any(p.suffix in _SUFFIXES for p in files)

    def __init__(self, path: Path) -> None:
        self.path = path
        self.missing: list[str] = []
        files = [path]
        if path.is_dir():
            files = sorted(p for suffix in _SUFFIXES for p in path.rglob(f"*{suffix}"))
        self.places: list[tuple[Path, str]] = []
        for file in files:
            with _open(file) as root:
                groups = ["/"] if "action" in root else []
                if "data" in root:
                    groups = [f"data/{n}" for n in root["data"]]
                self.places += [(file, g) for g in sorted(groups, key=_natural)]
        if not self.places:
            raise DataError(
                f"{path}: no demonstrations: expected data/demo_N (robomimic, LIBERO) "
                "or /action (ALOHA)"
            )
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
                    f"{where}: no {absent[0]!r}, which the first demonstration has; {SKIP_BAD}"
                )
            numbers = {
                k: np.asarray(demo[k], np.float64).reshape(len(demo[k]), -1)
                for k, f in self.fields.items()
                if f.kind == "numbers"
            }
            lengths = {k: len(demo[k]) for k in self.fields}
            instruction = _instruction(root, demo)
        if len(set(lengths.values())) != 1:
            shown = ", ".join(f"{k} {n}" for k, n in lengths.items())
            raise DataError(f"{where}: columns of different lengths ({shown}); {SKIP_BAD}")
        frames = {
            k: _images(file, f"{group}/{k}") for k, f in self.fields.items() if f.kind == "image"
        }
        return Recording(
            f"{index:07d}", next(iter(lengths.values())), self.fps, instruction, numbers, frames
        )


def _open(file: Path) -> Any:
    try:
        return need("h5py").File(file, "r")
    except OSError as error:
        raise DataError(
            f"{file}: not a complete HDF5 file ({error}); "
            "download it again, or skip bad episodes with --skip-bad"
        ) from error


def _natural(name: str) -> tuple[int, str]:
    digits = "".join(c for c in name if c.isdigit())
    return (int(digits) if digits else -1, name)


def _fields(demo: Any) -> dict[str, Field]:
    """Data sets with one row per step.

    Images are (T, H, W, 3) uint8, or (T, length) encoded bytes under a name with "image".
    """
    found: dict[str, Field] = {}
    steps = len(demo["actions"] if "actions" in demo else demo["action"])

    def visit(name: str, item: Any) -> None:
        if (
            not hasattr(item, "shape")
            or not item.shape
            or item.shape[0] != steps
            or name.startswith("next_obs")
        ):
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
    """An attribute named like an instruction, or LIBERO's ``problem_info``; empty if neither."""
    places = [demo.attrs, root.attrs] + ([root["data"].attrs] if "data" in root else [])
    for attributes in places:
        for name in ("language_instruction", "instruction", "task", "lang"):
            if name in attributes:
                return _text(attributes[name])
        if "problem_info" in attributes:
            info = json.loads(_text(attributes["problem_info"]))
            instruction = info.get("language_instruction", "")
            return " ".join(instruction) if isinstance(instruction, list) else str(instruction)
    return ""


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _images(file: Path, name: str) -> Frames:
    def frames(rows: Sequence[int]) -> Iterator[np.ndarray]:
        with _open(file) as root:
            data = root[name]
            for r in rows:
                row = np.asarray(data[r])
                if row.ndim == 3:
                    yield row
                    continue
                # Padded with zeros at the end, which decoders ignore.
                with Image.open(io.BytesIO(row.tobytes())) as image:
                    yield np.asarray(image.convert("RGB"))

    return frames
