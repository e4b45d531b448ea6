"""The plain folder format, for recorders that write images and a table.

Each episode is a folder with ``steps.csv`` (or ``steps.json``, a list of rows; or ``steps.npz``,
arrays) and one folder of images per camera, in the natural order of the file names. Columns with
the same prefix before the dot, such as ``action.x`` and ``action.y``, are one field.
``instruction.txt`` is in the episode's folder or in the root; else a column called instruction or
task is used. ``meta.json`` in the root may have ``fps`` and ``robot``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from vla.config.registry import register
from vla.data.readers.base import Field, Frames, OnDemand, Reader, Recording
from vla.data.readers.files import (
    SKIP_BAD,
    natural_key,
    natural_sorted,
    numbering_gaps,
    read_json_file,
    read_text,
)
from vla.data.readers.folder_table import TABLES, Table, read_steps
from vla.data.readers.pixels import decode_pixels
from vla.data.row_texts import varying, written_once
from vla.errors import BadSample, DataError

_IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm"}
_SAMPLED = 8  # episodes whose tables give the fields, evenly spread
_INSTRUCTION = ("instruction", "language_instruction", "task")


@register("reader", "folder")
class FolderReader(Reader):
    """A folder of episode folders.

    Raises:
        DataError: no episode folders, or no readable table.
    """

    format, layout, order = "folder", "*/steps.csv, steps.json or steps.npz and images", 40

    @classmethod
    def detects(cls, path: Path) -> bool:
        """True if there is an episode folder with a table."""
        return path.is_dir() and any(p.suffix in TABLES for p in path.glob("*/steps.*"))

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        tables: dict[Path, Path] = {}
        for file in path.glob("*/steps.*"):
            if file.suffix in TABLES:
                if file.parent in tables:
                    names = " and ".join(sorted((file.name, tables[file.parent].name)))
                    raise DataError(f"{file.parent}: has {names}; delete one of them")
                tables[file.parent] = file
        order = sorted(tables, key=lambda folder: natural_key(folder.name))
        self.tables = [tables[folder] for folder in order]
        if not self.tables:
            raise DataError(f"{path}: no episode folders with steps.csv, steps.json or steps.npz")
        self.missing = self._without_table(set(tables))
        self.fps, self.robot = self._describe(path / "meta.json")
        self.fields = self._fields()
        self._find_gaps()

    def _without_table(self, known: set[Path]) -> list[str]:
        """Message about folders that have images or an instruction but no table."""
        others = [p for p in self.path.iterdir() if p.is_dir() and p not in known]
        found = [p for p in others if (p / "instruction.txt").is_file() or _cameras(p)]
        listed = ", ".join(p.name for p in sorted(found, key=lambda p: natural_key(p.name))[:5])
        total = len(known) + len(found)
        return [f"{len(found)} of {total} episode folders have no table: {listed}"] if found else []

    def _describe(self, file: Path) -> tuple[float, str]:
        """Rows per second and the robot's name from ``meta.json``."""
        meta = read_json_file(file) if file.is_file() else {}
        fps = meta.get("fps") or 0.0
        if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 <= fps < 1e6:
            raise DataError(f"{file}: fps: expected rows per second, found {fps!r}")
        return float(fps), str(meta.get("robot") or "")

    def _fields(self) -> dict[str, Field]:
        """Fields and cameras of some episodes; damaged ones are left out here."""
        found: dict[str, Field] = {}
        cameras: dict[str, None] = {}
        problem: ValueError | None = None
        count = len(self.tables)
        picked = np.unique(np.linspace(0, count - 1, min(_SAMPLED, count)).astype(int))
        rest = [n for n in range(count) if n not in set(picked.tolist())]
        for n in [*picked.tolist(), *rest]:
            if n in rest and found:
                break
            try:
                table = read_steps(self.tables[n])
            except (DataError, BadSample) as error:
                problem = problem or error
                continue
            for key, values in table.numbers.items():
                if key not in found or found[key].kind == "text":
                    found[key] = Field("numbers", values.shape[1], table.names.get(key, ()))
            for key in table.texts:
                found.setdefault(key, Field("text"))
            cameras |= dict.fromkeys(_cameras(self.tables[n].parent))
        if not found:
            raise problem or DataError(f"{self.path}: the tables have no columns")
        return found | {name: Field("image") for name in sorted(cameras, key=natural_key)}

    def _find_gaps(self) -> None:
        """Note images whose numbering has gaps, which may mean that frames are lost."""
        for table in self.tables:
            for camera in (k for k, f in self.fields.items() if f.kind == "image"):
                folder = table.parent / camera
                gaps = numbering_gaps(p.name for p in _images(folder))
                if gaps:
                    self.notes.append(f"{folder}: {gaps[0]}; images belong to rows in order")
                    return

    def __len__(self) -> int:
        return len(self.tables)

    def location(self, index: int) -> str:
        """The table of an episode."""
        return str(self.tables[index])

    def __getitem__(self, index: int) -> Recording:
        file = self.tables[index]
        folder, table = file.parent, read_steps(file)
        numbers: dict[str, Callable[[], np.ndarray]] = {}
        texts: dict[str, Callable[[], list[str]]] = {}
        frames: dict[str, Frames] = {}
        for key, field in self.fields.items():
            if field.kind == "numbers":
                numbers[key] = partial(_numbers, table, key, field, file)
            elif field.kind == "text":
                texts[key] = partial(_texts, table, key, file)
            else:
                frames[key] = _frames(folder / key, table.steps)
        tasks = self._instructions(folder, table)
        return Recording(
            folder.name,
            table.steps,
            self.fps,
            tasks[0] if tasks else "",
            OnDemand(numbers),
            frames,
            OnDemand(texts),
            instructions=varying(tasks),
        )

    def _instructions(self, folder: Path, table: Table) -> list[str]:
        for file in (folder / "instruction.txt", self.path / "instruction.txt"):
            if file.is_file() and (text := read_text(file).strip()):
                return [text] * table.steps
        named = next((n for n in _INSTRUCTION if n in table.texts), None)
        return written_once(table.texts[named]) if named else []


def _numbers(table: Table, key: str, field: Field, file: Path) -> np.ndarray:
    if key in table.problems:
        raise BadSample(table.problems[key])
    values, names = table.numbers.get(key), table.names.get(key, ())
    if values is None or values.shape[1] != field.dims or set(names) != set(field.names):
        found = "is missing" if values is None else f"has {values.shape[1]}: {', '.join(names)}"
        raise DataError(
            f"{file}: field {key!r} {found}; in other episodes it has {field.dims}: "
            f"{', '.join(field.names)}; {SKIP_BAD}"
        )
    return values[:, [names.index(n) for n in field.names]] if names else values


def _texts(table: Table, key: str, file: Path) -> list[str]:
    if key not in table.texts:
        raise DataError(f"{file}: no text column {key!r}, which other episodes have; {SKIP_BAD}")
    return table.texts[key]


def _cameras(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.is_dir() and _images(p)]


def _images(folder: Path) -> list[Path]:
    """Image files in a folder, unsorted; hidden files are left out."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        found = [Path(e.path) for e in entries if not e.name.startswith(".")]
    return [p for p in found if p.suffix.lower() in _IMAGES]


def _frames(folder: Path, steps: int) -> Frames:
    def frames(rows: Sequence[int]) -> Iterator[np.ndarray]:
        files = natural_sorted(_images(folder))
        if len(files) != steps:
            gaps = numbering_gaps(p.name for p in files)
            hint = f" ({gaps[0]})" if gaps else ""
            raise BadSample(f"{folder}: {len(files)} images for {steps} rows{hint}; {SKIP_BAD}")
        for r in rows:
            try:
                data = files[r].read_bytes()
            except OSError as error:
                raise BadSample(f"{files[r]}: row {r}: unreadable ({error}); {SKIP_BAD}") from error
            yield decode_pixels(data, f"{files[r]}: row {r}")

    return frames
