"""Errors of the disk as one message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vla.errors import DataError


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn an OSError inside the block (disk full, read-only...) into one line.

    Raises:
        DataError: with the folder and the fix.
    """
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written ({error.strerror or error}); free some space or choose "
            "a folder that can be written; the same command continues"
        ) from error


def size_in_bytes(path: Path) -> int:
    """Size of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(f.stat().st_size for f in files if f.is_file())
