"""Readers of robot data formats. A new format is one file with one registered class."""

from __future__ import annotations

from pathlib import Path

from vla.config.registry import registered
from vla.data.readers.base import Reader
from vla.errors import DataError

__all__ = ["Reader", "open_reader"]


def open_reader(path: Path) -> Reader:
    """The reader of the data set at ``path``: the first one, by ``order``, that detects it.

    Raises:
        DataError: the path does not exist, or no reader detects its format.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    readers: dict[str, type[Reader]] = registered("reader")
    ordered = sorted(readers.items(), key=lambda item: (item[1].order, item[0]))
    for _, reader in ordered:
        if reader.detects(path):
            return reader(path)
    content = [path.name]
    if path.is_dir():
        content = sorted(p.name for p in path.iterdir())[:8] or ["nothing"]
    layouts = ", ".join(f"{name} ({reader.layout})" for name, reader in ordered)
    raise DataError(
        f"{path}: not a known robot data set; it has {', '.join(content)}; "
        f"expected one of {layouts}"
    )
