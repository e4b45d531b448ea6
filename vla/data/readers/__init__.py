"""Readers of robot data by format, and which one a path needs."""

from __future__ import annotations

from pathlib import Path

from vla.data.manifest import DataError
from vla.data.readers.base import Reader
from vla.data.readers.folder import FolderReader
from vla.data.readers.hdf5 import Hdf5Reader
from vla.data.readers.lerobot import LeRobotReader
from vla.data.readers.rlds import RldsReader

_HDF5 = {".hdf5", ".h5"}


def detect(path: Path) -> str:
    """``lerobot``, ``rlds``, ``hdf5`` or ``folder``.

    Raises:
        DataError: none of them; the message says what is there.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if (path / "meta" / "info.json").is_file():
        return "lerobot"
    if (path / "features.json").is_file() or (path.is_dir() and any(path.glob("*.tfrecord*"))):
        return "rlds"
    if path.suffix in _HDF5 or (path.is_dir() and any(p.suffix in _HDF5 for p in path.rglob("*"))):
        return "hdf5"
    if path.is_dir() and any(path.glob("*/steps.*")):
        return "folder"
    held = ", ".join(sorted(p.name for p in path.iterdir())[:8]) if path.is_dir() else path.name
    raise DataError(
        f"{path}: not a known robot data set (there is: {held or 'nothing'}); expected LeRobot (meta/info.json), RLDS (features.json, *.tfrecord), "
        "HDF5 (*.hdf5, *.h5) or folders with steps.csv and pictures"
    )


def open_reader(path: Path) -> Reader:
    """The reader of what is at ``path``."""
    readers: dict[str, type[Reader]] = {"lerobot": LeRobotReader, "rlds": RldsReader, "hdf5": Hdf5Reader, "folder": FolderReader}
    return readers[detect(path)](path)  # type: ignore[call-arg]
