"""Which cameras of a robot data set are packed, judged over the whole set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from vla.data.mapping import Mapping
from vla.data.readers.base import Field, Reader, Recording
from vla.data.readers.pixels import is_depth
from vla.errors import DataError

EPISODES = 8  # sampled, evenly spread; of each the first, the middle and the last row
_FLAT = 3  # largest difference of grey levels in an image of one colour


@dataclass
class CameraChoice:
    """The cameras to pack, and what the user must know about them."""

    cameras: dict[str, str]  # name -> recorded field
    notes: list[str] = field(default_factory=list)


def choose_cameras(reader: Reader, mapping: Mapping) -> CameraChoice:
    """The cameras that the mapping names; else all colour cameras with content.

    Cameras that are left out (depth, one colour in all sampled images) are named in ``notes``.

    Raises:
        DataError: the mapping names a camera that the data set lacks, or the data set has image
            fields and none of them is usable.
    """
    known = {n: f for n, f in reader.fields.items() if f.kind == "image"}
    if mapping.cameras is not None:
        for name in mapping.cameras.values():
            if name in reader.unusable:
                raise DataError(f"{reader.path}: mapping.cameras: {reader.unusable[name]}")
            if name not in known:
                choices = ", ".join(known) or "none"
                raise DataError(f"{reader.path}: mapping.cameras: no {name!r}; choices: {choices}")
        return _named_cameras(reader, mapping, known)
    usable = [n for n in known if n not in reader.unusable]
    found = contents(reader, [n for n in usable if not known[n].depth])
    left_out = [n for n in usable if known[n].depth or found[n] == "depth"]
    notes = [
        f"camera {n!r} is left out: it records depth; to pack it, name it in "
        "source.mapping.cameras and set source.mapping.depth_range_mm"
        for n in left_out
    ]
    blank = [n for n in usable if found.get(n) == "blank"]
    notes += [
        f"camera {n!r} is left out: all images of {min(EPISODES, len(reader))} sampled episodes "
        "have one colour; to pack it, name it in source.mapping.cameras"
        for n in blank
    ]
    used = [n for n in usable if n not in left_out and n not in blank]
    if known and not used:
        reasons = "; ".join([*notes, *(reader.unusable[n] for n in known if n in reader.unusable)])
        raise DataError(
            f"{reader.path}: no camera; image fields are {', '.join(known) or 'none'}"
            + (f"; {reasons}" if reasons else "")
            + "; for a policy without images set source.mapping.cameras={}"
        )
    return CameraChoice(_short_names(reader, used), notes)


def with_inputs(reader: Reader, choice: CameraChoice, state_names: list[str]) -> CameraChoice:
    """The choice; without cameras with a note that policies need the state.

    Raises:
        DataError: there are neither cameras nor a state.
    """
    if choice.cameras:
        return choice
    if not state_names:
        numbers = ", ".join(n for n, f in reader.fields.items() if f.kind == "numbers")
        raise DataError(
            f"{reader.path}: neither cameras nor a state; name the state with "
            f"source.mapping.state=[...]; number fields are {numbers}"
        )
    note = "no cameras: only policies with policy.state=true learn from this data"
    return CameraChoice({}, [*choice.notes, note])


def _named_cameras(reader: Reader, mapping: Mapping, known: dict[str, Field]) -> CameraChoice:
    cameras = dict(mapping.cameras or {})
    found = contents(reader, list(cameras.values()))
    near, far = mapping.depth_range_mm
    notes = [
        f"camera {name!r} records depth: {near:g} to {far:g} mm become grey levels 0 to 255 "
        "(integers are mm, floats are m); images of 8 bits stay as they are"
        for name, column in cameras.items()
        if found[column] == "depth" or known[column].depth
    ]
    notes += [
        f"camera {name!r} has one colour in all sampled images"
        for name, column in cameras.items()
        if found[column] == "blank"
    ]
    return CameraChoice(cameras, notes)


def contents(reader: Reader, cameras: list[str]) -> dict[str, str]:
    """Camera -> "colour", "depth", "blank", or "" if no sampled image is readable.

    Damaged episodes are skipped here; packing reports them.
    """
    found = dict.fromkeys(cameras, "")
    for index in np.unique(np.linspace(0, len(reader) - 1, min(EPISODES, len(reader)))):
        todo = [c for c in cameras if found[c] not in ("colour", "depth")]
        if not todo:
            break
        try:
            recording = reader[int(index)]
        except Exception:  # the libraries that decode raise exceptions of many classes
            continue
        for camera in todo:
            found[camera] = _content(recording, camera) or found[camera]
    return found


def _content(recording: Recording, camera: str) -> str:
    kind = ""
    for image in _samples(recording, camera):
        if image.ndim == 2 or (is_depth(camera) and (image == image[..., :1]).all()):
            return "depth"
        if np.ptp(image, axis=(0, 1)).max() > _FLAT:
            return "colour"
        kind = "blank"
    return kind


def _samples(recording: Recording, camera: str) -> Iterator[np.ndarray]:
    """The first, middle and last image, each read when it is asked for."""
    for row in dict.fromkeys((0, recording.steps // 2, recording.steps - 1)):
        try:
            yield from recording.frames[camera]([row])
        except Exception:  # packing reports the damaged image
            return


def _short_names(reader: Reader, used: list[str]) -> dict[str, str]:
    """Camera name -> field: the last part of the field's name where these differ."""
    aliases: dict[str, str] = getattr(reader, "aliases", {})
    names = [aliases.get(c, re.split(r"[./]", c)[-1]) for c in used]
    if len(set(names)) != len(names):
        names = [re.sub(r"\W+", "_", c) for c in used]
    if len(set(names)) != len(names):
        names = [f"camera_{n}" for n in range(len(used))]
    return dict(zip(names, used, strict=True))
