"""Files beside an HDF5 episode: DROID's videos and metadata, RoboTwin's instructions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vla.data.readers.base import need
from vla.data.readers.files import SKIP_BAD, natural_sorted, read_json_file
from vla.errors import DataError

_SCENE = re.compile(r"^[A-Z_]+SCENE\d+_")  # how the names of some of LIBERO's tasks begin
_CAMERAS = ("wrist", "ext1", "ext2")  # DROID's names of the cameras in metadata_*.json


def videos_of(file: Path) -> dict[str, Path]:
    """Camera -> video of a DROID episode, from ``recordings/MP4`` beside the file.

    ``metadata_*.json`` names the cameras; without it they have their serial numbers.
    """
    folder = file.parent / "recordings" / "MP4"
    if not folder.is_dir():
        return {}
    files = natural_sorted(p for p in folder.glob("*.mp4") if not p.stem.endswith("-stereo"))
    about = _metadata(file)
    roles = {str(about.get(f"{name}_cam_serial", "")): name for name in _CAMERAS}
    return {roles.get(p.stem, p.stem): p for p in files}


def instruction_beside(file: Path) -> str:
    """The instruction in DROID's metadata or in RoboTwin's ``instructions``; empty if none.

    RoboTwin has several instructions per episode: the first "seen" one counts.
    """
    about = _metadata(file)
    if about:
        return str(about.get("current_task") or about.get("language_instruction") or "")
    for folder in _instruction_folders(file):
        path = folder / f"{file.stem}.json"
        if path.is_file():
            found = read_json_file(path)
            texts = [t for key in ("seen", "unseen", "instructions") for t in found.get(key) or []]
            return str(texts[0]) if texts else str(found.get("instruction", ""))
    return ""


def has_instructions(file: Path) -> bool:
    """True if RoboTwin's folder of instructions is beside the file."""
    return any(folder.is_dir() for folder in _instruction_folders(file))


def _instruction_folders(file: Path) -> list[Path]:
    return [file.parent / "instructions", file.parent.parent / "instructions"]


def _metadata(file: Path) -> dict[str, Any]:
    found = sorted(file.parent.glob("metadata_*.json"))
    return read_json_file(found[0]) if found else {}


def frames_by_number(
    path: Path, rows: Sequence[int], steps: int, where: str
) -> Iterator[np.ndarray]:
    """Frames of a video with one frame per row, (H, W, 3) uint8.

    Raises:
        DataError: the video is missing or damaged, or has another number of frames.
    """
    av = need("av")
    wanted, number = iter(rows), -1
    row = next(wanted, None)
    try:
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                while row == number:
                    yield frame.to_ndarray(format="rgb24")
                    row = next(wanted, None)
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise DataError(f"{path}: damaged video of {where} ({error}); {SKIP_BAD}") from error
    # One frame more than rows is usual: the camera stops after the robot.
    if not steps <= number + 1 <= steps + 1:
        raise DataError(f"{path}: {number + 1} frames for {steps} rows of {where}; {SKIP_BAD}")


def text_in(attributes: Any) -> str:
    """The instruction in a group's attributes; empty if there is none.

    Names such as ``language_instruction``, LIBERO's ``problem_info``, RoboCasa's ``ep_meta``. The
    name of LIBERO's file ``bddl_file_name`` comes first: evaluations and published policies use
    its words, from which ``problem_info`` differs in some suites.
    """
    for name in ("language_instruction", "instruction", "task", "lang", "language"):
        if name in attributes:
            return _text(attributes[name])
    if "problem_info" in attributes and "bddl_file_name" in attributes:
        stem = PurePosixPath(_text(attributes["bddl_file_name"])).stem
        return _SCENE.sub("", stem).replace("_", " ")
    for name in ("problem_info", "ep_meta"):
        if name in attributes:
            try:
                info = json.loads(_text(attributes[name]))
            except ValueError:
                return ""
            found = info.get("language_instruction") or info.get("lang") or ""
            return " ".join(found) if isinstance(found, list) else str(found)
    return ""


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
