"""Readers of image-text data. A new format is one file with one registered class."""

from __future__ import annotations

from pathlib import Path

from vla.config.registry import nearest, registered
from vla.data.web.base import WebReader
from vla.data.web.mapping import WebMapping
from vla.errors import DataError

__all__ = ["WebReader", "detect", "layouts", "open_web_reader"]


def _ordered() -> dict[str, type[WebReader]]:
    readers: dict[str, type[WebReader]] = registered("web_reader")
    return dict(sorted(readers.items(), key=lambda item: (item[1].order, item[0])))


def layouts() -> str:
    """All formats with their files, for error messages."""
    return ", ".join(f"{name} ({reader.layout})" for name, reader in _ordered().items())


def detect(path: Path) -> list[str]:
    """Names of the formats of the data set at ``path``.

    Raises:
        DataError: the path does not exist, or its only annotation file is damaged.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if (path / "manifest.json").is_file() and (path / "samples.jsonl").is_file():
        raise DataError(f"{path}: is packed already; give the original data set")
    return [name for name, reader in _ordered().items() if reader.detects(path)]


def open_web_reader(
    path: Path, form: str | None, images: Path | None, mapping: WebMapping
) -> WebReader:
    """The reader of a data set.

    Args:
        form: name of the format; None: detected.
        images: folder of the images; None: beside the texts.

    Raises:
        DataError: no such path, an unknown format, or one that is not clear.
    """
    readers = _ordered()
    if form is not None and form not in readers:
        raise DataError(f"source.format: no format {form!r}{nearest(form, readers)}")
    found = detect(path) if form is None else [form]
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if len(found) > 1:
        raise DataError(
            f"{path}: has several formats ({', '.join(found)}); choose one with "
            f"source.format={found[0]}, or give its file instead of the folder"
        )
    if not found:
        content = [path.name]
        if path.is_dir():
            content = sorted(p.name for p in path.iterdir())[:8] or ["nothing"]
        raise DataError(
            f"{path}: not known image-text data; it has {', '.join(content)}; "
            f"expected one of {layouts()}"
        )
    return readers[found[0]](path, images, mapping)
