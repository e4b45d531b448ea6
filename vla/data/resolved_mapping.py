"""A mapping with all names looked up in one data set."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from vla.data.mapping import Mapping
from vla.data.readers.base import Field, Reader, Recording
from vla.data.relative import last
from vla.data.rotations import DIMS, convert_rotation, rotation_names
from vla.errors import DataError

_SLICE = re.compile(r"^(?P<field>[^\[\]]+)(\[(?P<first>\d+):(?P<last>\d+)\])?$")


def _short(name: str) -> str:
    return re.split(r"[./]", name)[-1]


def _fields_named(fields: dict[str, Field], kind: str, names: tuple[str, ...]) -> list[str]:
    """Fields of a kind whose last part is one of ``names``, those under an observation first."""
    found = [n for n, f in fields.items() if f.kind == kind and _short(n) in names]
    return sorted(found, key=lambda n: ("obs" not in n, n))


class Columns:
    """The recorded dimensions of one vector, and their names.

    Raises:
        DataError: an unknown field, or dimensions that it does not have.
    """

    def __init__(self, reader: Reader, wanted: list[str], what: str) -> None:
        self.parts: list[tuple[str, slice]] = []
        self.names: list[str] = []
        for entry in wanted:
            match = _SLICE.match(entry)
            name = match["field"] if match else entry
            known = {n: f for n, f in reader.fields.items() if f.kind == "numbers"}
            if match is None or name not in known:
                raise DataError(
                    f"{reader.path}: mapping.{what}: no field {entry!r}; "
                    f"its number fields are {', '.join(known)}"
                )
            dims = known[name].dims
            first, end = int(match["first"] or 0), int(match["last"] or dims)
            if not 0 <= first < end <= dims:
                raise DataError(
                    f"{reader.path}: mapping.{what}: {entry!r}: {name} has dims 0 to {dims}"
                )
            self.parts.append((name, slice(first, end)))
            named = known[name].names or tuple(f"{_short(name)}_{n}" for n in range(dims))
            self.names += named[first:end]
        if len(set(self.names)) != len(self.names):
            self.names = [f"{what}_{n}" for n in range(len(self.names))]

    def take(self, recording: Recording) -> np.ndarray:
        """(T, dims)."""
        return np.concatenate([recording.numbers[name][:, dims] for name, dims in self.parts], 1)


class ResolvedMapping:
    """A mapping for one reader: fields, names, cameras and rates.

    Attributes:
        names: names of the action dimensions, after rotations are converted.
        cameras: camera name -> recorded field.
        fps, rate: recorded and kept rows per second.

    Raises:
        DataError: a field, dimension or rate that the data set does not have.
    """

    def __init__(self, reader: Reader, mapping: Mapping) -> None:
        self.reader, self.mapping = reader, mapping
        fields, path = reader.fields, reader.path
        action = mapping.action or _fields_named(fields, "numbers", ("action", "actions"))[:1]
        if not action:
            numbers = ", ".join(n for n, f in fields.items() if f.kind == "numbers")
            raise DataError(
                f"{path}: no field is called action; name it with source.mapping.action=[...]; "
                f"number fields are {numbers}"
            )
        self.action = Columns(reader, action, "action")
        state = mapping.state
        if state is None:
            state = _fields_named(fields, "numbers", ("state", "qpos", "proprio"))[:1]
        self.state = Columns(reader, state, "state") if state else None
        self.fps, self.rate = self._rates()
        self.names = self._action_names()
        for key in ("binary", "invert", "delta", "accumulate"):
            self._check_known(getattr(mapping, key), self.names, f"mapping.{key}")
        own = self.state.names if self.state else []
        self._check_known(mapping.delta.values(), own, "mapping.delta (state dims)")
        if mapping.plan:
            texts = [
                n for n, f in fields.items() if f.kind == "text" or n.startswith("annotation.")
            ]
            self._check_known([mapping.plan], texts, "mapping.plan")
        cameras = [n for n, f in fields.items() if f.kind == "image"]
        if mapping.cameras is not None:
            self._check_known(mapping.cameras.values(), cameras, "mapping.cameras")
        self.cameras = (
            mapping.cameras if mapping.cameras is not None else self._used_cameras(cameras)
        )
        if not self.cameras:
            raise DataError(f"{path}: no camera; image fields are {', '.join(cameras) or 'none'}")

    def _rates(self) -> tuple[float, float]:
        path, mapping = self.reader.path, self.mapping
        fps = self.reader.fps or mapping.fps or 0.0
        if fps <= 0:
            raise DataError(
                f"{path}: this format does not record the rows per second; "
                "set them, for example source.mapping.fps=5"
            )
        rate = mapping.rate_hz or fps
        if rate > fps + 1e-6:
            raise DataError(
                f"{path}: mapping.rate_hz={rate}: the recording has only {fps} rows a second"
            )
        return fps, rate

    def _check_known(self, wanted: Iterable[str], choices: list[str], what: str) -> None:
        for name in wanted:
            if name not in choices:
                known = ", ".join(choices) or "none"
                raise DataError(f"{self.reader.path}: {what}: no {name!r}; choices: {known}")

    def _used_cameras(self, cameras: list[str]) -> dict[str, str]:
        """Cameras whose first image has more than one colour; some data sets declare others."""
        first = self.reader[0]
        used = [c for c in cameras if np.ptp(next(iter(first.frames[c]([0])))) > 0]
        aliases: dict[str, str] = getattr(self.reader, "aliases", {})
        names = [aliases.get(c, _short(c)) for c in used]
        if len(set(names)) != len(names):
            names = [re.sub(r"\W+", "_", c) for c in used]
        return dict(zip(names, used, strict=True))

    def _action_names(self) -> list[str]:
        path, names, mapping = self.reader.path, list(self.action.names), self.mapping
        if mapping.names is not None:
            if len(mapping.names) != len(names):
                raise DataError(
                    f"{path}: mapping.names: {len(mapping.names)} names for {len(names)} "
                    f"action dims ({', '.join(names)})"
                )
            names = list(mapping.names)
        self.raw_names = list(names)
        for r in mapping.rotations:
            self._check_known([r.first], names, "mapping.rotations.first")
            at = names.index(r.first)
            if at + DIMS[r.source] > len(names):
                raise DataError(
                    f"{path}: mapping.rotations: {r.first!r} and the dims after it are fewer "
                    f"than the {DIMS[r.source]} of {r.source}"
                )
            names[at : at + DIMS[r.source]] = [
                f"{r.target}_{n}" if r.target != "euler_xyz" else n
                for n in rotation_names(r.target)
            ]
        return names

    def rows(self, steps: int) -> np.ndarray:
        """Indices of the recorded rows that are kept at the chosen rate."""
        count = max(1, int(np.floor((steps - 1) / self.fps * self.rate + 1e-6)) + 1)
        return np.minimum(np.round(np.arange(count) / self.rate * self.fps).astype(int), steps - 1)

    def actions(self, recording: Recording, rows: np.ndarray) -> np.ndarray:
        """(len(rows), A) float32."""
        values, mapping = self.action.take(recording), self.mapping
        at = {n: k for k, n in enumerate(self.raw_names)}
        for name in mapping.invert:
            values[:, at[name]] = 1.0 - values[:, at[name]]
        for name, threshold in mapping.binary.items():
            values[:, at[name]] = values[:, at[name]] > threshold
        if mapping.delta and self.state is not None:
            state = self.state.take(recording)
            for name, own in mapping.delta.items():
                values[:, at[name]] -= state[:, self.state.names.index(own)]
        kept = values[rows]
        ends = [*rows[1:], len(values)]
        for name in mapping.accumulate:
            sums = [values[a:b, at[name]].sum() for a, b in zip(rows, ends, strict=True)]
            kept[:, at[name]] = sums
        for r in mapping.rotations:
            first = self.raw_names.index(r.first)
            end = first + DIMS[r.source]
            turned = convert_rotation(kept[:, first:end], r)
            kept = np.concatenate([kept[:, :first], turned, kept[:, end:]], 1)
        return kept.astype(np.float32)

    @property
    def state_names(self) -> list[str]:
        """Names of the dimensions of ``states``."""
        previous = self.names if self.mapping.append_previous_action else []
        return [*(self.state.names if self.state else ()), *(last(n) for n in previous)]

    def states(self, recording: Recording, rows: np.ndarray) -> np.ndarray | None:
        """(len(rows), P) float32, or None without a state."""
        state = self.state.take(recording)[rows] if self.state else np.zeros((len(rows), 0))
        if self.mapping.append_previous_action:
            own = self.state.names if self.state else []
            start = [state[0, own.index(n)] if n in own else 0.0 for n in self.names]
            previous = np.concatenate([[start], self.actions(recording, rows)[:-1]])
            state = np.concatenate([state, previous], 1)
        return state.astype(np.float32) if state.shape[1] else None

    def instruction(self, recording: Recording) -> str:
        """The episode's instruction: the format's, a text field, or the filled template."""
        wanted = self.mapping.instruction
        if wanted is None:
            return recording.instruction
        first = {k: next((t for t in v if t.strip()), "") for k, v in recording.texts.items()}
        if wanted in first:
            return first[wanted]
        try:
            fields = {_short(k): v for k, v in first.items()}
            return wanted.format(task=recording.instruction, **fields)
        except (KeyError, IndexError) as error:
            raise DataError(
                f"{self.reader.path}: mapping.instruction={wanted!r}: no {error}; "
                f"use {{task}} or one of {', '.join(first) or 'no text fields'}"
            ) from error
