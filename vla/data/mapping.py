"""From recorded columns to actions, state, pictures and words: the choices a user makes about a robot data set, and their defaults."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from vla.data.manifest import DataError
from vla.data.pictures import Encoding
from vla.data.readers.base import Field, Reader, Recording
from vla.data.relative import last
from vla.data.rotations import DIMS, RotationConfig, rotation_names, turn

_SLICE = re.compile(r"^(?P<field>[^\[\]]+)(\[(?P<first>\d+):(?P<last>\d+)\])?$")


@dataclass(frozen=True)
class Mapping:
    """What of a recording is used, and how. Everything has a default that fits data sets with the usual names.

    cameras: our name -> recorded field (default: every camera that shows anything). state, action: recorded fields, in order; ``field[0:6]``
    takes some of its dims. names, units: of the action dims. binary: action dim -> threshold; above it the dim is 1, else 0. invert: dims that become
    1 - x (gripper conventions), before thresholds. delta: action dim -> state dim: absolute targets that are to be learned as differences to
    the present state. last_action: the state ends with the action that was recorded before ("last <dim>"; before the first one: the state dim of the same
    name, or 0), which whoever runs the policy must then tell it too. rotations: see ``RotationConfig``. fps: rows a second, for formats that do not say it. rate_hz: keep so many rows a second;
    summed: action dims that are movements since the last row, and add up over dropped rows. instruction: a text field, or a template such as
    ``"{task}, slowly"``. plan: a text field with what comes next (chain of thought). size: px, square; fit: ``squash`` the whole picture, ``crop`` its
    middle, or ``pad`` it with black. pictures: ``jpeg``, or ``ppm``, which loses nothing and is read faster, for several times the disk.
    """

    cameras: dict[str, str] | None = None
    state: list[str] | None = None
    action: list[str] | None = None
    names: list[str] | None = None
    units: list[str] | None = None
    binary: dict[str, float] = field(default_factory=dict)
    invert: list[str] = field(default_factory=list)
    delta: dict[str, str] = field(default_factory=dict)
    last_action: bool = False
    rotations: list[RotationConfig] = field(default_factory=list)
    fps: float | None = None
    rate_hz: float | None = None
    summed: list[str] = field(default_factory=list)
    instruction: str | None = None
    plan: str | None = None
    size: int = 224
    fit: Literal["squash", "crop", "pad"] = "squash"
    pictures: Encoding = "jpeg"


def _short(name: str) -> str:
    return re.split(r"[./]", name)[-1]


def _like(fields: dict[str, Field], kind: str, words: tuple[str, ...]) -> list[str]:
    """Fields of a kind whose last part is one of ``words``; among several, those under an observation first."""
    found = [n for n, f in fields.items() if f.kind == kind and _short(n) in words]
    return sorted(found, key=lambda n: ("obs" not in n, n))


class Columns:
    """Which recorded dims make up one vector, and what they are called.

    Raises:
        DataError: an unknown field, or dims that it does not have.
    """

    def __init__(self, reader: Reader, wanted: list[str], what: str) -> None:
        self.parts: list[tuple[str, slice]] = []
        self.names: list[str] = []
        for entry in wanted:
            match = _SLICE.match(entry)
            name = match["field"] if match else entry
            known = {n: f for n, f in reader.fields.items() if f.kind == "numbers"}
            if match is None or name not in known:
                raise DataError(f"{reader.path}: mapping.{what}: no field {entry!r}; its number fields are {', '.join(known)}")
            dims = known[name].dims
            first, last = int(match["first"] or 0), int(match["last"] or dims)
            if not 0 <= first < last <= dims:
                raise DataError(f"{reader.path}: mapping.{what}: {entry!r}: {name} has dims 0 to {dims}")
            self.parts.append((name, slice(first, last)))
            named = known[name].names or tuple(f"{_short(name)}_{n}" for n in range(dims))
            self.names += named[first:last]
        if len(set(self.names)) != len(self.names):
            self.names = [f"{what}_{n}" for n in range(len(self.names))]

    def take(self, recording: Recording) -> np.ndarray:
        """(T, dims)."""
        return np.concatenate([recording.numbers[name][:, dims] for name, dims in self.parts], 1)


class Plan:
    """A mapping made whole for one reader: every name looked up, once.

    Raises:
        DataError: a field, dim or rate that is not there; the message has the choices.
    """

    def __init__(self, reader: Reader, mapping: Mapping) -> None:
        self.reader, self.mapping = reader, mapping
        fields, where = reader.fields, reader.path
        action = mapping.action or _like(fields, "numbers", ("action", "actions"))[:1]
        if not action:
            numbers = ", ".join(n for n, f in fields.items() if f.kind == "numbers")
            raise DataError(
                f"{where}: no field is called action; say which is: source.mapping.action=[...]; number fields are {numbers}"
            )
        self.action = Columns(reader, action, "action")
        state = mapping.state if mapping.state is not None else _like(fields, "numbers", ("state", "qpos", "proprio"))[:1]
        self.state = Columns(reader, state, "state") if state else None
        self.fps = reader.fps or mapping.fps or 0.0
        if self.fps <= 0:
            raise DataError(f"{where}: this format does not say how many rows a second it has; say it: source.mapping.fps=5")
        self.rate = mapping.rate_hz or self.fps
        if self.rate > self.fps + 1e-6:
            raise DataError(f"{where}: mapping.rate_hz={self.rate}: the recording has only {self.fps} rows a second")
        self.names = self._action_names()
        for key in ("binary", "invert", "delta", "summed"):
            self._known(getattr(mapping, key), self.names, f"mapping.{key}")
        self._known(mapping.delta.values(), self.state.names if self.state else [], "mapping.delta (state dims)")
        if mapping.plan:
            texts = [n for n, f in fields.items() if f.kind == "text" or n.startswith("annotation.")]
            self._known([mapping.plan], texts, "mapping.plan")
        cameras = [n for n, f in fields.items() if f.kind == "image"]
        if mapping.cameras is not None:
            self._known(mapping.cameras.values(), cameras, "mapping.cameras")
        self.cameras = mapping.cameras if mapping.cameras is not None else self._seeing(cameras)
        if not self.cameras:
            raise DataError(f"{where}: no camera; image fields are {', '.join(cameras) or 'none'}")

    def _known(self, wanted: object, choices: list[str], what: str) -> None:
        for name in wanted:  # type: ignore[attr-defined]
            if name not in choices:
                raise DataError(f"{self.reader.path}: {what}: no {name!r}; choices: {', '.join(choices) or 'none'}")

    def _seeing(self, cameras: list[str]) -> dict[str, str]:
        """Cameras that show more than one colour in the first episode (some data sets declare cameras they do not have)."""
        first = self.reader[0]
        shown = [c for c in cameras if np.ptp(next(iter(first.frames[c]([0])))) > 0]
        aliases: dict[str, str] = getattr(self.reader, "aliases", {})
        short = [aliases.get(c, _short(c)) for c in shown]
        return dict(zip(short if len(set(short)) == len(short) else [re.sub(r"\W+", "_", c) for c in shown], shown, strict=True))

    def _action_names(self) -> list[str]:
        names, mapping = list(self.action.names), self.mapping
        if mapping.names is not None:
            if len(mapping.names) != len(names):
                raise DataError(
                    f"{self.reader.path}: mapping.names: {len(mapping.names)} names for {len(names)} action dims ({', '.join(names)})"
                )
            names = list(mapping.names)
        self.raw_names = list(names)
        for r in mapping.rotations:
            self._known([r.first], names, "mapping.rotations.first")
            at = names.index(r.first)
            if at + DIMS[r.source] > len(names):
                raise DataError(
                    f"{self.reader.path}: mapping.rotations: {r.first!r} and the dims behind it are fewer than {r.source} needs"
                )
            names[at : at + DIMS[r.source]] = [
                f"{r.target}_{n}" if r.target != "euler_xyz" else n for n in rotation_names(r.target)
            ]
        return names

    def rows(self, steps: int) -> np.ndarray:
        """Which recorded rows are kept, at the wanted rate."""
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
        if mapping.summed:
            ends = [*rows[1:], len(values)]
            for name in mapping.summed:
                kept[:, at[name]] = [values[a:b, at[name]].sum() for a, b in zip(rows, ends, strict=True)]
        for r in mapping.rotations:
            first = self.raw_names.index(r.first)
            kept = np.concatenate(
                [kept[:, :first], turn(kept[:, first : first + DIMS[r.source]], r), kept[:, first + DIMS[r.source] :]], 1
            )
        return kept.astype(np.float32)

    @property
    def state_names(self) -> list[str]:
        """Of the dims of ``states``."""
        return [*(self.state.names if self.state else ()), *(last(n) for n in self.names if self.mapping.last_action)]

    def states(self, recording: Recording, rows: np.ndarray) -> np.ndarray | None:
        """(len(rows), P) float32; None where no state is recorded or wanted."""
        felt = self.state.take(recording)[rows] if self.state else np.zeros((len(rows), 0))
        if self.mapping.last_action:
            own = self.state.names if self.state else []
            start = [felt[0, own.index(n)] if n in own else 0.0 for n in self.names]
            felt = np.concatenate([felt, np.concatenate([[start], self.actions(recording, rows)[:-1]])], 1)
        return felt.astype(np.float32) if felt.shape[1] else None

    def instruction(self, recording: Recording) -> str:
        """What the robot was told."""
        wanted = self.mapping.instruction
        if wanted is None:
            return recording.instruction
        first = {k: next((t for t in v if t.strip()), "") for k, v in recording.texts.items()}
        if wanted in first:
            return first[wanted]
        try:
            return wanted.format(task=recording.instruction, **{_short(k): v for k, v in first.items()})
        except (KeyError, IndexError) as error:
            raise DataError(
                f"{self.reader.path}: mapping.instruction={wanted!r}: no {error}; use {{task}} or one of {', '.join(first) or 'no text fields'}"
            ) from error
