"""Zarr replay buffers of Diffusion Policy and UMI."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla.config.registry import register
from vla.data.readers.arrays import array_field, array_peak, as_numbers
from vla.data.readers.base import Field, Frames, OnDemand, Reader, Recording
from vla.data.readers.files import SKIP_BAD, natural_sorted, reading, refuse_pointer
from vla.data.readers.pixels import decode_pixels
from vla.data.readers.zarr_store import ZarrStore, read_blocks
from vla.errors import BadSample, DataError

_ENDS = "meta/episode_ends"
# UMI records poses of the gripper and no action; robots are numbered from 0.
_POSE = ("eef_pos", "eef_rot_axis_angle", "gripper_width")
_ACTION = "action"
# Fields of the state if none is called state.
_STATES = ("agent_pos", "robot_eef_pose", "robot_joint")


@dataclass(frozen=True)
class _Episode:
    store: ZarrStore
    number: int  # in its store
    first: int  # row of the arrays
    end: int
    error: str = ""  # why it cannot be read


@register("reader", "zarr")
class ReplayBufferReader(Reader):
    """A zarr replay buffer, as a folder or a ``.zarr.zip`` file, or a folder of them.

    ``data/*`` has the rows of all episodes, ``meta/episode_ends`` the row after each episode's
    last. The format records neither the rows per second nor an instruction.

    Raises:
        DataError: no episode ends, or ends that do not rise.
    """

    format, layout, order = "zarr", "data/* and meta/episode_ends (zarr)", 35

    @classmethod
    def detects(cls, path: Path) -> bool:
        """True for a store, or a folder with one."""
        return bool(_stores(path))

    def __init__(self, path: Path) -> None:
        self.path, self.missing = path, []
        notes: list[str] = []
        self.episodes: list[_Episode] = []
        errors = []
        stores = _stores(path)
        for place in stores:
            try:
                self.episodes += _episodes(ZarrStore(place), notes)
            except DataError as error:
                self.episodes.append(_Episode(ZarrStore(place), 0, 0, 0, str(error)))
                errors.append(str(error))
        good = [e.store for e in self.episodes if not e.error]
        if not good:
            raise DataError(errors[0] if errors else f"{path}: no episodes in meta/episode_ends")
        self.notes = [*errors, *notes]
        self._find_fields(good[0])

    def _find_fields(self, store: ZarrStore) -> None:
        """Fields from the first readable store; arrays that cannot be used are said when used."""
        self.fields: dict[str, Field] = {}
        self.peaks: dict[str, float | None] = {}
        unusable: dict[str, str] = {}
        rows = _rows(store)
        for name in store.names("data"):
            try:
                array = store.array(f"data/{name}")
                field = array_field(name, array)
                if not array.shape or array.shape[0] != rows:
                    raise DataError(f"{store.path}: data/{name}: {array.shape} for {rows} rows")
                if field is None:
                    raise DataError(
                        f"{store.path}: data/{name}: {array.dtype} of shape {array.shape} is "
                        "neither an image nor a vector per row"
                    )
            except DataError as error:
                unusable[name] = str(error)
                continue
            self.fields[name] = field
            is_float = field.kind == "image" and array.dtype.kind == "f"
            self.peaks[name] = array_peak(array) if is_float else None
        self.unusable = unusable
        self.poses = [n for r in range(8) for p in _POSE if (n := f"robot{r}_{p}") in self.fields]
        if _ACTION not in self.fields and self.poses:
            names = [f"{p}_{d}" for p in self.poses for d in range(self.fields[p].dims)]
            self.fields[_ACTION] = Field("numbers", len(names), tuple(names))
            self.default_state = self.poses
            self.notes = [
                *self.notes,
                "no action is recorded: the action is the pose in the next row "
                f"({', '.join(self.poses)}); the last row repeats",
            ]
        elif "state" not in self.fields:
            self.default_state = [n for n in _STATES if n in self.fields][:1]

    def __len__(self) -> int:
        return len(self.episodes)

    def location(self, index: int) -> str:
        return str(self.episodes[index].store.path)

    def __getitem__(self, index: int) -> Recording:
        episode = self.episodes[index]
        if episode.error:
            raise BadSample(episode.error)
        kinds: dict[str, list[str]] = {"numbers": [], "image": []}
        for name, field in self.fields.items():
            kinds[field.kind].append(name)
        return Recording(
            f"{index:07d}",
            episode.end - episode.first,
            self.fps,
            _instruction(episode),
            OnDemand({n: functools.partial(self._numbers, episode, n) for n in kinds["numbers"]}),
            {n: self._frames(episode, n) for n in kinds["image"]},
        )

    def _numbers(self, episode: _Episode, name: str) -> np.ndarray:
        if name == _ACTION and self.poses and _ACTION not in episode.store.names("data"):
            poses = np.concatenate([self._numbers(episode, p) for p in self.poses], 1)
            return np.concatenate([poses[1:], poses[-1:]])
        where = _where(episode, name)
        array = self._array(episode, name)
        rows = list(range(episode.end - episode.first))
        values = np.array([v for _, v in read_blocks(array, episode.first, rows, where)])
        return as_numbers(values, self.fields[name].dims, where)

    def _array(self, episode: _Episode, name: str) -> Any:
        store = episode.store
        array = store.array(f"data/{name}")
        if array.shape[0] < episode.end:
            raise DataError(f"{_where(episode, name)}: only {array.shape[0]} rows; {SKIP_BAD}")
        store.check_chunks(f"data/{name}", array, episode.first, episode.end)
        return array

    def _frames(self, episode: _Episode, name: str) -> Frames:
        def frames(rows: Sequence[int]) -> Iterator[np.ndarray]:
            where, array = _where(episode, name), self._array(episode, name)
            deep, peak = self.fields[name].depth, self.peaks[name]
            for r, value in read_blocks(array, episode.first, list(rows), where):
                yield decode_pixels(value, f"{where}, row {r}", depth=deep, peak=peak)

        return frames


def _where(episode: _Episode, name: str) -> str:
    return f"{episode.store.path}: data/{name}, episode {episode.number}"


def _stores(path: Path) -> list[Path]:
    """The stores at a path: itself, or the files and folders in it."""
    if path.name.endswith((".zarr", ".zarr.zip")) or ZarrStore.holds(path, _ENDS):
        return [path]
    inner = path.iterdir() if path.is_dir() else []
    return natural_sorted(p for p in inner if re.search(r"\.zarr(\.zip)?$", p.name))


def _rows(store: ZarrStore) -> int:
    """The usual number of rows of the arrays under ``data``."""
    lengths: Counter[int] = Counter()
    for name in store.names("data"):
        try:
            shape = store.array(f"data/{name}").shape
        except DataError:
            continue
        lengths[shape[0] if shape else 0] += 1
    return max(lengths, key=lambda n: (lengths[n], n), default=0)


def _episodes(store: ZarrStore, notes: list[str]) -> list[_Episode]:
    """The episodes of a store; those beyond the end of the arrays have an error.

    Raises:
        DataError: no ends, or ends that do not rise.
    """
    where = f"{store.path}: {_ENDS}"
    if store.path.is_file():
        refuse_pointer(store.path)
    if not ZarrStore.holds(store.path, _ENDS):
        raise DataError(f"{where}: missing; a replay buffer has it: download the whole data set")
    array = store.array(_ENDS)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"{where}: {array.dtype} of shape {array.shape}; expected row numbers")
    if array.shape[0]:
        store.check_chunks(_ENDS, array, 0, array.shape[0])
    with reading(where):
        ends = [int(n) for n in np.asarray(array[:])]
    starts = [0, *ends[:-1]]
    wrong = next((n for n, (a, b) in enumerate(zip(starts, ends, strict=True)) if a >= b), None)
    if wrong is not None:
        raise DataError(
            f"{where}: episode {wrong} ends at row {ends[wrong]} and begins at {starts[wrong]}; "
            "the ends must rise; repair them or download the data set again"
        )
    rows = _rows(store)
    if ends and ends[-1] < rows:
        notes.append(f"{where}: rows {ends[-1]} to {rows - 1} are after the last episode: left out")
    if ends and ends[-1] > rows:
        notes.append(f"{where}: goes to row {ends[-1]}, the arrays have {rows} rows")
    beyond = f"{where}: episode {{}} ends at row {{}}, the arrays have {rows} rows; {SKIP_BAD}"
    return [
        _Episode(store, n, first, end, beyond.format(n, end) if end > rows else "")
        for n, (first, end) in enumerate(zip(starts, ends, strict=True))
    ]


def _instruction(episode: _Episode) -> str:
    """The text of an episode in ``meta/instruction`` or ``meta/language``; empty if none."""
    for name in ("instruction", "language_instruction", "language", "task"):
        if ZarrStore.holds(episode.store.path, f"meta/{name}"):
            array = episode.store.array(f"meta/{name}")
            if array.dtype.kind in "UST" and array.shape and episode.number < array.shape[0]:
                with reading(f"{episode.store.path}: meta/{name}"):
                    value = array[episode.number]
                    value = value.item() if isinstance(value, (np.ndarray, np.generic)) else value
                    return value.decode() if isinstance(value, bytes) else str(value)
    return ""
