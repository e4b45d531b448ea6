"""A mapping with all names looked up in one data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from vla.data.camera_choice import choose_cameras, with_inputs
from vla.data.columns import Columns, short_name
from vla.data.mapping import Mapping
from vla.data.readers.base import Field, OnDemand, Reader, Recording
from vla.data.relative import last
from vla.data.rotations import DIMS, convert_rotation, rotation_names
from vla.data.row_texts import fill_template, first_text, written_once
from vla.errors import DataError


def _fields_named(fields: dict[str, Field], kind: str, names: tuple[str, ...]) -> list[str]:
    """Fields of a kind whose last part is one of ``names``, those under an observation first."""
    found = [n for n, f in fields.items() if f.kind == kind and short_name(n) in names]
    return sorted(found, key=lambda n: ("obs" not in n, n))


class ResolvedMapping:
    """A mapping for one reader: fields, names, cameras and rates.

    Attributes:
        names: names of the action dimensions, after rotations are converted.
        cameras: camera name -> recorded field.
        notes: messages about cameras that are left out or converted.
        fps, rate: recorded and kept rows per second.

    Raises:
        DataError: a field, dimension or rate that the data set does not have.
    """

    def __init__(self, reader: Reader, mapping: Mapping) -> None:
        self.reader, self.mapping = reader, mapping
        fields, path = reader.fields, reader.path
        action = mapping.action or list(reader.default_action)
        action = action or _fields_named(fields, "numbers", ("action", "actions"))[:1]
        if not action:
            numbers = ", ".join(n for n, f in fields.items() if f.kind == "numbers")
            raise DataError(
                f"{path}: no field is called action; name it with source.mapping.action=[...]; "
                f"number fields are {numbers}"
            )
        self.action = Columns(reader, action, "action")
        state = mapping.state
        if state is None:
            named = _fields_named(fields, "numbers", ("state", "qpos", "proprio"))[:1]
            state = list(reader.default_state) or named
        self.state = Columns(reader, state, "state") if state else None
        self._name_state()
        self.fps, self.rate = self._rates()
        self.names = self._action_names()
        for key in ("binary", "integer", "invert", "delta", "accumulate", "absolute", "relative"):
            self._check_known(getattr(mapping, key), self.names, f"mapping.{key}")
        own = self.state.names if self.state else []
        self._check_known(mapping.delta.values(), own, "mapping.delta (state dims)")
        texts = [n for n, f in fields.items() if f.kind == "text" or n.startswith("annotation.")]
        if mapping.plan:
            self._check_known([mapping.plan], texts, "mapping.plan")
        if mapping.group:
            single = [n for n, f in fields.items() if f.kind == "numbers" and f.dims == 1]
            self._check_known([mapping.group], [*texts, *single], "mapping.group")
        self.cameras = mapping.cameras or {}
        reader.choose_rows(self.fps, self.used)
        choice = with_inputs(reader, choose_cameras(reader, mapping), self.state_names)
        self.cameras, self.notes = choice.cameras, choice.notes
        self._check_known(mapping.flip, list(self.cameras), "mapping.flip (cameras)")
        reader.choose_rows(self.fps, self.used)

    def _name_state(self) -> None:
        """Give the dimensions of the state the names of the mapping, if it has them."""
        chosen, known = self.mapping.state_names, self.state.names if self.state else []
        if chosen is None:
            return
        where = f"{self.reader.path}: mapping.state_names"
        if len(chosen) != len(known):
            listed = f" ({', '.join(known)})" if known else ""
            raise DataError(f"{where}: {len(chosen)} names for {len(known)} state dims{listed}")
        if len(set(chosen)) < len(chosen):
            raise DataError(f"{where}: two names are equal: {', '.join(chosen)}")
        if self.state:
            self.state.names = list(chosen)

    @property
    def used(self) -> set[str]:
        """The recorded fields that are packed."""
        columns = [self.action, *([self.state] if self.state else [])]
        numbers = {name for c in columns for name, _ in c.parts}
        return numbers | set(self.cameras.values())

    def _rates(self) -> tuple[float, float]:
        path, mapping = self.reader.path, self.mapping
        fps = self.reader.fps or mapping.fps or 0.0
        if fps <= 0:
            raise DataError(
                f"{path}: this data does not record the rows per second; set them with "
                f"source.mapping.fps=N{self._instruction_advice()}"
            )
        rate = mapping.rate_hz or fps
        if rate > fps + 1e-6:
            raise DataError(
                f"{path}: mapping.rate_hz={rate}: the recording has only {fps} rows a second"
            )
        return fps, rate

    def _instruction_advice(self) -> str:
        """The second thing to set if the first episode has no instruction; else empty."""
        if self.mapping.instruction is not None:
            return ""
        try:
            self.reader.choose_rows(1.0, {name for name, _ in self.action.parts})
            recording = self.reader[0]
        except Exception:  # packing reports what is unreadable
            return ""
        if any(text.strip() for text in self.instructions(recording)):
            return ""
        return (
            "; it has no instruction either: name a text field or give a text with "
            "source.mapping.instruction='...'"
        )

    def _check_known(self, wanted: Iterable[str], choices: list[str], what: str) -> None:
        for name in wanted:
            if name not in choices:
                known = ", ".join(choices) or "none"
                raise DataError(f"{self.reader.path}: {what}: no {name!r}; choices: {known}")

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

    def instructions(self, recording: Recording) -> list[str]:
        """T texts, one per recorded row: the format's, those of a text field, or the template's.

        A row without text has an empty one.
        """
        wanted, steps = self.mapping.instruction, recording.steps
        task = recording.instructions or [recording.instruction] * steps
        if wanted is None:
            return task
        texts = recording.texts
        if wanted in texts:
            return written_once(texts[wanted])
        read: dict[str, Callable[[], list[str]]] = {"task": lambda: task}
        for name in texts:
            read[short_name(name)] = partial(lambda n: written_once(texts[n]), name)
        fields = OnDemand(read)
        try:
            return fill_template(wanted, fields, steps)
        except DataError as error:
            raise DataError(f"{self.reader.path}: {error}") from error

    def group(self, recording: Recording) -> str:
        """Scene or operator of an episode: the first value of the field; empty without one."""
        name = self.mapping.group
        if not name:
            return ""
        if name in recording.texts:
            return first_text(recording.texts[name])
        return f"{recording.numbers[name][0, 0]:g}"
