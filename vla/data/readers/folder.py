"""The plain folder: for robots whose recorder writes pictures and a table.

``ROOT/<episode>/steps.csv`` (or ``.json``: a list of rows, or ``.npz``: arrays) and one folder of pictures a camera beside it, in order of their
names. Columns ``action.x, action.y, state.x`` belong together by what stands before the dot. ``instruction.txt`` in the episode or in the root;
``meta.json`` in the root may have ``fps`` and ``robot``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vla.data.manifest import DataError
from vla.data.readers.base import Field, Frames, Recording

_PICTURES = {".jpg", ".jpeg", ".png", ".webp"}


class FolderReader:
    """One folder of episode folders.

    Raises:
        DataError: no episode folders, or a table that cannot be read.
    """

    format = "folder"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.missing: list[str] = []
        self.episodes = sorted(p.parent for p in path.glob("*/steps.*") if p.suffix in (".csv", ".json", ".npz"))
        if not self.episodes:
            raise DataError(f"{path}: no episode folders with steps.csv, steps.json or steps.npz")
        about = path / "meta.json"
        meta = json.loads(about.read_text(encoding="utf-8")) if about.is_file() else {}
        self.fps, self.robot = float(meta.get("fps", 0.0)), str(meta.get("robot", ""))
        numbers, texts, names = _read_steps(self.episodes[0])
        self.fields = {k: Field("numbers", v.shape[1], names.get(k, ())) for k, v in numbers.items()}
        self.fields |= {k: Field("text") for k in texts} | {c.name: Field("image") for c in _cameras(self.episodes[0])}

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, index: int) -> Recording:
        folder = self.episodes[index]
        numbers, texts, _ = _read_steps(folder)
        steps = len(next(iter(numbers.values())))
        frames: dict[str, Frames] = {}
        for key, field in self.fields.items():
            if field.kind == "numbers" and (key not in numbers or numbers[key].shape[1] != field.dims):
                raise DataError(
                    f"{folder}: column {key!r} is missing or has another width than in {self.episodes[0].name}; repair it, or skip bad episodes with --skip-bad"
                )
            if field.kind == "image":
                files = sorted(p for p in (folder / key).glob("*") if p.suffix.lower() in _PICTURES)
                if len(files) != steps:
                    raise DataError(
                        f"{folder / key}: {len(files)} pictures for {steps} rows; repair it, or skip bad episodes with --skip-bad"
                    )
                frames[key] = _pictures(files)
        said = next(
            (
                p.read_text(encoding="utf-8").strip()
                for p in (folder / "instruction.txt", self.path / "instruction.txt")
                if p.is_file()
            ),
            "",
        )
        return Recording(folder.name, steps, self.fps, said, numbers, frames, texts)


def _cameras(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and any(f.suffix.lower() in _PICTURES for f in p.iterdir()))


def _read_steps(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, list[str]], dict[str, tuple[str, ...]]]:
    """(numbers by field, texts by field, dim names by field)."""
    file = next(p for p in sorted(folder.glob("steps.*")) if p.suffix in (".csv", ".json", ".npz"))
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as arrays:
                return {k: np.asarray(arrays[k], np.float64).reshape(len(arrays[k]), -1) for k in arrays.files}, {}, {}
        if file.suffix == ".csv":
            with file.open(newline="", encoding="utf-8") as stream:
                rows: list[dict[str, Any]] = list(csv.DictReader(stream))
        else:
            rows = [_flat(r) for r in json.loads(file.read_text(encoding="utf-8"))]
        return _columns(rows)
    except (ValueError, KeyError, OSError, TypeError) as error:
        raise DataError(f"{file}: unreadable table ({error}); repair it, or skip bad episodes with --skip-bad") from error


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Lists in JSON rows to ``field.0, field.1``."""
    out: dict[str, Any] = {}
    for key, value in row.items():
        out |= {f"{key}.{n}": v for n, v in enumerate(value)} if isinstance(value, list) else {key: value}
    return out


def _columns(rows: list[dict[str, Any]]) -> tuple[dict[str, np.ndarray], dict[str, list[str]], dict[str, tuple[str, ...]]]:
    if not rows:
        raise ValueError("no rows")
    groups: dict[str, list[str]] = {}
    texts: dict[str, list[str]] = {}
    for name in rows[0]:
        if _is_number(rows[0][name]):
            groups.setdefault(name.split(".")[0], []).append(name)
        else:
            texts[name] = [str(r[name] or "") for r in rows]
    numbers = {g: np.array([[float(r[n]) for n in names] for r in rows]) for g, names in groups.items()}
    return numbers, texts, {g: tuple(n.partition(".")[2] or n for n in names) for g, names in groups.items()}


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _pictures(files: list[Path]) -> Frames:
    def frames(rows: Sequence[int]) -> Iterator[np.ndarray]:
        for r in rows:
            try:
                with Image.open(files[r]) as image:
                    yield np.asarray(image.convert("RGB"))
            except OSError as error:
                raise DataError(
                    f"{files[r]}: unreadable picture ({error}); repair it, or skip bad episodes with --skip-bad"
                ) from error

    return frames
