"""HDF5 demonstrations of robomimic, LIBERO, ALOHA, DROID and RoboTwin."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vla.config.registry import register
from vla.data.readers.arrays import as_numbers
from vla.data.readers.base import Field, Frames, OnDemand, Reader, Recording
from vla.data.readers.files import SKIP_BAD, natural_key, numbering_gaps, reading
from vla.data.readers.hdf5_beside import frames_by_number, has_instructions, videos_of
from vla.data.readers.hdf5_columns import find_columns, read_images, read_texts
from vla.data.readers.hdf5_files import Demo, action_of, demonstrations, instruction_of, open_demo
from vla.data.row_texts import first_text, varying, written_once
from vla.errors import DataError

_SUFFIXES = (".hdf5", ".h5")
# Fields of the state: the group of which a demonstration has the first; others are left out.
_STATES: tuple[tuple[str, ...], ...] = (
    ("obs/ee_states", "obs/joint_states", "obs/gripper_states"),  # LIBERO
    ("obs/robot0_eef_pos", "obs/robot0_eef_quat", "obs/robot0_gripper_qpos"),  # robomimic
    ("observation/robot_state/cartesian_position", "observation/robot_state/gripper_position"),
    (
        "endpose/left_endpose",
        "endpose/left_gripper",
        "endpose/right_endpose",
        "endpose/right_gripper",
    ),
)
_OBSERVED = ("obs", "endpose", "robot")  # how the names of groups with states begin
_NAMED_STATE = ("state", "qpos", "proprio")


@register("reader", "hdf5")
class Hdf5Reader(Reader):
    """A ``.hdf5`` or ``.h5`` file, or a folder of them.

    Fields are data set names inside a demonstration, such as ``obs/agentview_rgb``. The formats
    do not record the rows per second.

    Raises:
        DataError: no file can be read, or none has demonstrations.
    """

    format, layout, order = "hdf5", "*.hdf5, *.h5", 30

    @classmethod
    def detects(cls, path: Path) -> bool:
        """True for an HDF5 file, or a folder with one at any depth."""
        files = path.rglob("*") if path.is_dir() else [path]
        return any(p.suffix in _SUFFIXES for p in files)

    def __init__(self, path: Path) -> None:
        self.path, self.missing = path, []
        self.notes: list[str] = []
        files = [path]
        if path.is_dir():
            found = (p for p in path.rglob("*") if p.suffix in _SUFFIXES)
            files = sorted(found, key=lambda p: natural_key(p.relative_to(path).as_posix()))
            self.notes += numbering_gaps(self._name(p) for p in files)
        self.places: list[Demo] = []
        without: list[str] = []
        for file in files:
            demos = demonstrations(file)
            self.places += demos
            without += [] if demos else [file.name]
        if without and self.places:
            self.notes.append(f"files without demonstrations: {', '.join(without[:5])}")
        self.notes += [p.error for p in self.places if p.error]
        self._look_at_first()

    def _look_at_first(self) -> None:
        """Fields and defaults from the first demonstration that can be read."""
        errors = []
        for place in self.places:
            try:
                with open_demo(place) as root, reading(f"{place.file}: {place.group}"):
                    demo = root[place.group]
                    action = action_of(demo)
                    if not action:
                        raise DataError(f"{place.file}: {place.group}: no actions; {SKIP_BAD}")
                    self.action = action
                    self.fields, odd = find_columns(demo, len(demo[action[0]]))
                    self.fields |= {name: Field("image") for name in videos_of(place.file)}
                break
            except ValueError as error:
                errors.append(str(error))
        else:
            expected = "expected data/demo_N (robomimic, LIBERO), /action (ALOHA, DROID)"
            raise DataError(
                errors[0]
                if errors
                else f"{self.path}: no demonstrations: {expected} or /joint_action (RoboTwin)"
            )
        self.default_action = [k for k in action if k in self.fields]
        if odd:
            self.notes.append(f"left out, neither numbers nor images nor texts: {', '.join(odd)}")
        self._choose_state()
        if has_instructions(place.file):
            self.notes.append("instruction: the first of each episode in instructions/*.json")

    def _choose_state(self) -> None:
        """Default state, and a note about the columns that are not taken."""
        group = next((s for s in _STATES if s[0] in self.fields), ())
        if not any(f.kind == "image" for f in self.fields.values()):
            group = (*group, "obs/object")  # positions of objects, which images show otherwise
        self.default_state = [k for k in group if k in self.fields]
        numbers = [k for k, f in self.fields.items() if f.kind == "numbers"]
        observed = [k for k in numbers if k.startswith(_OBSERVED) and k not in self.default_state]
        named = [k for k in observed if k.rsplit("/", 1)[-1] in _NAMED_STATE]
        taken = self.default_state or named[:1]
        others = [k for k in observed if k not in taken]
        if self.default_state or others:
            text = f"state, unless mapping.state is set: {', '.join(taken) or 'none'}"
            self.notes.append(text + (f"; not taken: {', '.join(others)}" if others else ""))

    def _name(self, file: Path) -> str:
        return file.relative_to(self.path).with_suffix("").as_posix() if file != self.path else ""

    def __len__(self) -> int:
        return len(self.places)

    def location(self, index: int) -> str:
        return str(self.places[index].file)

    def __getitem__(self, index: int) -> Recording:
        place = self.places[index]
        where = f"{place.file}: {place.group}"
        with open_demo(place) as root, reading(where):
            demo = root[place.group]
            if action_of(demo) != self.action:
                raise DataError(f"{where}: no {' and '.join(self.action)}; {SKIP_BAD}")
            steps = len(demo[self.action[0]])
            said = instruction_of(root, demo, place.file)
        kinds: dict[str, list[str]] = {"numbers": [], "text": [], "image": []}
        for name, field in self.fields.items():
            kinds[field.kind].append(name)
        numbers = OnDemand(
            {k: functools.partial(self._numbers, place, steps, k) for k in kinds["numbers"]}
        )
        texts = OnDemand(
            {k: functools.partial(self._texts, place, steps, k) for k in kinds["text"]}
        )
        videos = videos_of(place.file)
        frames = {k: self._frames(place, steps, k, videos) for k in kinds["image"]}
        rows: list[str] = []
        if not said:
            named = [k for k in kinds["text"] if "instruction" in k or "language" in k]
            rows = next((t for t in (written_once(texts[k]) for k in named) if first_text(t)), [])
        return Recording(
            f"{self._name(place.file)}/{place.group.removeprefix('data/')}".strip("/")
            or f"{index:07d}",
            steps,
            self.fps,
            said or first_text(rows),
            numbers,
            frames,
            texts,
            varying(rows),
            place.split,
        )

    @contextlib.contextmanager
    def _item(self, place: Demo, name: str, steps: int) -> Iterator[Any]:
        """A data set with ``steps`` rows."""
        where = f"{place.file}: {place.group}/{name}"
        with open_demo(place) as root:
            with reading(where):
                demo = root[place.group]
                if name not in demo:
                    raise DataError(
                        f"{place.file}: {place.group}: no {name!r}, which the first "
                        f"demonstration has; {SKIP_BAD}"
                    )
                item = demo[name]
                if not getattr(item, "shape", None) or item.shape[0] != steps:
                    raise DataError(
                        f"{where}: shape {getattr(item, 'shape', 'of a group')} for {steps} rows "
                        f"of {self.action[0]}; columns of different lengths; {SKIP_BAD}"
                    )
            yield item

    def _numbers(self, place: Demo, steps: int, name: str) -> np.ndarray:
        where = f"{place.file}: {place.group}/{name}"
        with self._item(place, name, steps) as item, reading(where):
            return as_numbers(item, self.fields[name].dims, where)

    def _texts(self, place: Demo, steps: int, name: str) -> list[str]:
        where = f"{place.file}: {place.group}/{name}"
        with self._item(place, name, steps) as item, reading(where):
            return read_texts(item)

    def _frames(self, place: Demo, steps: int, name: str, videos: dict[str, Path]) -> Frames:
        where = f"{place.file}: {place.group}"

        def frames(rows: Sequence[int]) -> Iterator[np.ndarray]:
            if name in videos:
                return frames_by_number(videos[name], rows, steps, str(place.file))
            return read_images(
                lambda: self._item(place, name, steps), rows, self.fields[name], f"{where}/{name}"
            )

        return frames
