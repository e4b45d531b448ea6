"""The same small data set in every format: name -> function of folder and episode lengths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from array_files import write_bags, write_calvin, write_zarr
from lerobot_files import write_lerobot2, write_lerobot3
from robot_files import LENGTHS, write_aloha, write_folder, write_rlds, write_robomimic

FORMATS: dict[str, Callable[[Path, tuple[int, ...]], Path]] = {
    "lerobot2": lambda path, lengths: write_lerobot2(path, lengths=lengths),
    "lerobot3": write_lerobot3,
    "rlds": write_rlds,
    "robomimic": lambda path, lengths: write_robomimic(path / "demo.hdf5", lengths).parent,
    "aloha": write_aloha,
    "folder": write_folder,
    "folder_json": lambda path, lengths: write_folder(path, lengths, "json"),
    "folder_npz": lambda path, lengths: write_folder(path, lengths, "npz"),
    "zarr": write_zarr,
    "calvin": write_calvin,
    "ros": write_bags,
}


def write_format(name: str, path: Path, lengths: tuple[int, ...] = LENGTHS) -> Path:
    """Write the data set in a format; returns its folder."""
    return FORMATS[name](path, lengths)
