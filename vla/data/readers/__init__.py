"""Readers of robot data formats. A new format is one file with one registered class."""

from __future__ import annotations

from pathlib import Path

from vla.config.registry import registered
from vla.data.readers.base import Reader
from vla.errors import DataError

__all__ = ["Reader", "detect_reader", "open_reader"]


def _ordered() -> list[tuple[str, type[Reader]]]:
    readers: dict[str, type[Reader]] = registered("reader")
    return sorted(readers.items(), key=lambda item: (item[1].order, item[0]))


def detect_reader(path: Path) -> type[Reader] | None:
    """The first reader, by ``order``, that detects the data set at ``path``; None: no reader.

    Raises:
        DataError: the path does not exist.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    return next((reader for _, reader in _ordered() if reader.detects(path)), None)


def open_reader(path: Path) -> Reader:
    """The reader of the data set at ``path``, see ``detect_reader``.

    Raises:
        DataError: the path does not exist, or no reader detects its format.
    """
    reader = detect_reader(path)
    if reader is not None:
        return reader(path)
    content = [path.name]
    if path.is_dir():
        content = sorted(p.name for p in path.iterdir())[:8] or ["nothing"]
    layouts = ", ".join(f"{name} ({reader.layout})" for name, reader in _ordered())
    raise DataError(
        f"{path}: not a known robot data set; it has {', '.join(content)}; "
        f"expected one of {layouts}"
    )
