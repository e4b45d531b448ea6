"""CALVIN: one npz file per row, and language annotations of parts of the recording."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla.config.registry import register
from vla.data.readers.arrays import array_field, as_numbers
from vla.data.readers.base import Field, Frames, OnDemand, Reader, Recording, ranges
from vla.data.readers.calvin_language import ENDS, annotated_parts, row_ranges
from vla.data.readers.files import SKIP_BAD, refuse_pointer
from vla.data.readers.pixels import decode_pixels
from vla.errors import DataError
from vla.utils.npz import open_npz

_FILE = re.compile(r"episode_(\d{5,})\.npz")  # CALVIN writes seven digits
_PARTS = {"training": "train", "validation": "val"}  # folder -> split


@dataclass(frozen=True)
class _Episode:
    files: dict[int, Path]  # number of a row -> its file; of the whole folder
    folder: Path
    first: int
    last: int  # inclusive
    instruction: str = ""
    split: str = ""

    @property
    def absent(self) -> list[int]:
        """Numbers of the rows without a file."""
        return [n for n in range(self.first, self.last + 1) if n not in self.files]


@register("reader", "calvin")
class CalvinReader(Reader):
    """A folder with ``episode_*.npz``, one file per row, or with ``training`` and ``validation``.

    Each annotated part of the recording is one episode; without annotations, each range of
    ``ep_start_end_ids.npy``. The format does not record the rows per second (CALVIN: 30).

    Raises:
        DataError: no rows, or a damaged list of episodes.
    """

    format, layout, order = "calvin", "episode_*.npz and ep_start_end_ids.npy", 36

    @classmethod
    def detects(cls, path: Path) -> bool:
        """True if the folder, or its ``training`` or ``validation``, has a list of episodes."""
        return bool(_folders(path))

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        self.episodes: list[_Episode] = []
        folders = _folders(path)
        for folder in folders:
            split = _PARTS.get(folder.name, "") if len(folders) > 1 else ""
            self.episodes += _episodes(folder, split, self.notes)
        if not self.episodes:
            raise DataError(f"{path}: {ENDS} lists no episodes")
        gone = [n for n, e in enumerate(self.episodes) if e.absent]
        count = len(self.episodes)
        self.missing = (
            [f"{len(gone)} of the {count} episodes lack files of rows: {ranges(gone)}"]
            if gone
            else []
        )
        self._find_fields()

    def _find_fields(self) -> None:
        """Fields from the first row that can be read."""
        error: DataError | None = None
        self.fields: dict[str, Field] = {}
        unusable: dict[str, str] = {}
        for episode in self.episodes:
            file = episode.files.get(episode.first)
            if file is None:
                continue
            try:
                with open_npz(file) as arrays:
                    for name in arrays:
                        field = array_field(name, _as_row(arrays, name))
                        if field is None:
                            unusable[name] = f"{file}: {name} is neither an image nor a vector"
                        else:
                            self.fields[name] = field
                break
            except DataError as damaged:
                error = error or damaged
        if not self.fields:
            raise error or DataError(f"{self.path}: no episode_*.npz files; download the whole set")
        self.unusable = unusable
        self.default_action = [n for n in ("rel_actions", "actions") if n in self.fields][:1]
        self.default_state = ["robot_obs"] if "robot_obs" in self.fields else []
        if {"rel_actions", "actions"} <= set(self.fields):
            self.notes.append(
                "action, unless mapping.action is set: rel_actions (scaled relative poses); "
                "not taken: actions (absolute poses)"
            )

    def __len__(self) -> int:
        return len(self.episodes)

    def location(self, index: int) -> str:
        return str(self.episodes[index].folder)

    def leave_out_incomplete(self, used: Collection[str]) -> None:
        self.episodes = [e for e in self.episodes if not e.absent]

    def __getitem__(self, index: int) -> Recording:
        episode = self.episodes[index]
        if episode.absent:
            raise DataError(
                f"{episode.folder}: episode {index}: no files of rows {ranges(episode.absent)}; "
                "download them, or pack the rest with --skip-missing"
            )
        files = [episode.files[n] for n in range(episode.first, episode.last + 1)]
        kinds: dict[str, list[str]] = {"numbers": [], "image": []}
        for name, field in self.fields.items():
            kinds[field.kind].append(name)
        return Recording(
            f"{index:07d}",
            len(files),
            self.fps,
            episode.instruction,
            OnDemand({n: functools.partial(self._numbers, files, n) for n in kinds["numbers"]}),
            {n: self._frames(files, n) for n in kinds["image"]},
            split=episode.split,
        )

    def _numbers(self, files: list[Path], name: str) -> np.ndarray:
        dims = self.fields[name].dims
        rows = [as_numbers(_value(f, name)[None], dims, f"{f}: {name}") for f in files]
        return np.concatenate(rows)

    def _frames(self, files: list[Path], name: str) -> Frames:
        def frames(rows: Sequence[int]) -> Iterator[np.ndarray]:
            for r in rows:
                value = _value(files[r], name)
                yield decode_pixels(value, f"{files[r]}: {name}", depth=self.fields[name].depth)

        return frames


def _as_row(arrays: Any, name: str) -> np.ndarray:
    """An array as one row of a column; its values only for images, from which the peak is known."""
    shape, dtype = arrays.header(name)
    return arrays[name][None] if len(shape) > 1 else np.zeros((1, *shape), dtype)


def _value(file: Path, name: str) -> np.ndarray:
    try:
        with open_npz(file) as arrays:
            if name not in arrays:
                raise DataError(f"{file}: no {name!r}, which the first row has; {SKIP_BAD}")
            return arrays[name]
    except DataError:
        refuse_pointer(file)
        raise


def _folders(path: Path) -> list[Path]:
    """The folders with rows: the path itself, or its parts."""
    places = [path, *(path / name for name in _PARTS)]
    return [p for p in places if (p / ENDS).is_file() or _has_rows(p)]


def _has_rows(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(_FILE.fullmatch(e.name) for e in entries)


def _episodes(folder: Path, split: str, notes: list[str]) -> list[_Episode]:
    with os.scandir(folder) as entries:
        found = ((_FILE.fullmatch(e.name), e.name) for e in entries)
        files = {int(m[1]): folder / name for m, name in found if m}
    spans = annotated_parts(folder, notes)
    if not spans:
        spans = [("", first, last) for first, last in row_ranges(folder)]
    return [_Episode(files, folder, a, b, text, split) for text, a, b in spans]
