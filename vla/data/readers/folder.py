"""The plain folder format, for recorders that write images and a table.

Each episode is a folder with ``steps.csv`` (or ``steps.json``, a list of rows; or ``steps.npz``,
arrays) and one folder of images per camera, in order of the file names. Columns with the same
prefix before the dot, such as ``action.x`` and ``action.y``, are one field. ``instruction.txt`` is
in the episode's folder or in the root. ``meta.json`` in the root may have ``fps`` and ``robot``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vla.config.registry import register
from vla.data.readers.base import Field, Frames, Reader, Recording
from vla.data.readers.files import SKIP_BAD
from vla.errors import DataError

_IMAGES = {".jpg", ".jpeg", ".png", ".webp"}


@register("reader", "folder")
class FolderReader(Reader):
    """A folder of episode folders.

    Raises:
        DataError: no episode folders, or a table that cannot be read.
    """

    format, layout, order = "folder", "*/steps.csv, steps.json or steps.npz and images", 40

    @classmethod
    def detects(cls, path: Path) -> bool:
        """True if there is an episode folder with a table."""
        return path.is_dir() and any(path.glob("*/steps.*"))

    def __init__(self, path: Path) -> None:
        self.path = path
        self.missing: list[str] = []
        self.episodes = sorted(
            p.parent for p in path.glob("*/steps.*") if p.suffix in (".csv", ".json", ".npz")
        )
        if not self.episodes:
            raise DataError(f"{path}: no episode folders with steps.csv, steps.json or steps.npz")
        about = path / "meta.json"
        meta = json.loads(about.read_text(encoding="utf-8")) if about.is_file() else {}
        self.fps, self.robot = float(meta.get("fps", 0.0)), str(meta.get("robot", ""))
        numbers, texts, names = _read_steps(self.episodes[0])
        self.fields = {
            k: Field("numbers", v.shape[1], names.get(k, ())) for k, v in numbers.items()
        }
        self.fields |= {k: Field("text") for k in texts} | {
            c.name: Field("image") for c in _cameras(self.episodes[0])
        }

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, index: int) -> Recording:
        folder = self.episodes[index]
        numbers, texts, _ = _read_steps(folder)
        steps = len(next(iter(numbers.values())))
        frames: dict[str, Frames] = {}
        for key, field in self.fields.items():
            if field.kind == "numbers" and (
                key not in numbers or numbers[key].shape[1] != field.dims
            ):
                raise DataError(
                    f"{folder}: column {key!r} is missing or has another width than in "
                    f"{self.episodes[0].name}; {SKIP_BAD}"
                )
            if field.kind == "image":
                files = sorted(p for p in (folder / key).glob("*") if p.suffix.lower() in _IMAGES)
                if len(files) != steps:
                    raise DataError(
                        f"{folder / key}: {len(files)} images for {steps} rows; {SKIP_BAD}"
                    )
                frames[key] = _images(files)
        files = [folder / "instruction.txt", self.path / "instruction.txt"]
        lines = (p.read_text(encoding="utf-8").strip() for p in files if p.is_file())
        return Recording(folder.name, steps, self.fps, next(lines, ""), numbers, frames, texts)


def _cameras(folder: Path) -> list[Path]:
    return sorted(
        p
        for p in folder.iterdir()
        if p.is_dir() and any(f.suffix.lower() in _IMAGES for f in p.iterdir())
    )


def _read_steps(
    folder: Path,
) -> tuple[dict[str, np.ndarray], dict[str, list[str]], dict[str, tuple[str, ...]]]:
    """(numbers by field, texts by field, dim names by field)."""
    file = next(p for p in sorted(folder.glob("steps.*")) if p.suffix in (".csv", ".json", ".npz"))
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as arrays:
                values = {k: np.asarray(arrays[k], np.float64) for k in arrays.files}
                return {k: v.reshape(len(v), -1) for k, v in values.items()}, {}, {}
        if file.suffix == ".csv":
            with file.open(newline="", encoding="utf-8") as stream:
                rows: list[dict[str, Any]] = list(csv.DictReader(stream))
        else:
            rows = [_flat(r) for r in json.loads(file.read_text(encoding="utf-8"))]
        return _columns(rows)
    except (ValueError, KeyError, OSError, TypeError) as error:
        raise DataError(f"{file}: unreadable table ({error}); {SKIP_BAD}") from error


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A JSON row with lists as columns ``field.0``, ``field.1``..."""
    out: dict[str, Any] = {}
    for key, value in row.items():
        out |= (
            {f"{key}.{n}": v for n, v in enumerate(value)}
            if isinstance(value, list)
            else {key: value}
        )
    return out


def _columns(
    rows: list[dict[str, Any]],
) -> tuple[dict[str, np.ndarray], dict[str, list[str]], dict[str, tuple[str, ...]]]:
    if not rows:
        raise ValueError("no rows")
    groups: dict[str, list[str]] = {}
    texts: dict[str, list[str]] = {}
    for name in rows[0]:
        if _is_number(rows[0][name]):
            groups.setdefault(name.split(".")[0], []).append(name)
        else:
            texts[name] = [str(r[name] or "") for r in rows]
    numbers = {
        g: np.array([[float(r[n]) for n in names] for r in rows]) for g, names in groups.items()
    }
    return (
        numbers,
        texts,
        {g: tuple(n.partition(".")[2] or n for n in names) for g, names in groups.items()},
    )


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _images(files: list[Path]) -> Frames:
    def frames(rows: Sequence[int]) -> Iterator[np.ndarray]:
        for r in rows:
            try:
                with Image.open(files[r]) as image:
                    yield np.asarray(image.convert("RGB"))
            except OSError as error:
                raise DataError(f"{files[r]}: unreadable image ({error}); {SKIP_BAD}") from error

    return frames
