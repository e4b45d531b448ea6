"""The folder of a packed data set, without a look at its content."""

from __future__ import annotations

from pathlib import Path

from vla.errors import DataError

MANIFEST = "manifest.json"


def check_packed(directory: Path) -> Path:
    """The path of the folder's manifest.

    Raises:
        DataError: no such folder, a saved policy, or no manifest (packing did not finish).
    """
    path = directory / MANIFEST
    if not directory.is_dir():
        raise DataError(f"{directory}: no such data folder; make it with `vla pack`")
    if (directory / "policy.yaml").is_file():
        raise DataError(f"{directory}: a saved policy; expected the folder of packed data")
    if not path.is_file():
        raise DataError(
            f"{path}: missing, so packing did not finish; "
            "run the same `vla pack` again to resume it"
        )
    return path
