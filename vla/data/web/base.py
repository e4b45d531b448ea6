"""The interface of a reader of image-text data: records as they are on disk."""

from __future__ import annotations

import base64
import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from vla.config.registry import nearest
from vla.data.web.finder import ImageFinder
from vla.data.web.mapping import BoxFormat, WebMapping
from vla.errors import DataError

_SPLIT = re.compile(
    r"(?:^|[^a-z])(train|training|restval|val|valid|validation|dev|test|testing)(?![a-z])"
)
_SPLITS = {"train": "train", "training": "train", "restval": "train", "test": "test"}
_LONGEST_NAME = 1024  # characters of a file's name; longer texts may be images in base64
_SPLITS |= {"testing": "test"}


@dataclass
class WebRecord:
    """One image and the rows of the data set that are about it."""

    key: str
    # Encoded bytes, a file, a file's name, or a mapping with ``bytes`` and ``path``. None: texts
    # without an image.
    image: Any
    rows: list[Mapping[str, Any]]  # column -> value
    split: str = ""  # recorded split, see ``split_of``; empty: not recorded
    size: tuple[int, int] | None = None  # declared (width, height) in px, which boxes refer to


class WebReader(ABC):
    """One data set on disk. Register a subclass with ``@register("web_reader", name)``."""

    format: ClassVar[str]  # the registered name
    layout: ClassVar[str]  # the files that identify the format, for error messages
    order: ClassVar[int] = 100  # readers are tried in rising order

    path: Path
    columns: Sequence[str]  # columns of the rows
    # Option of ``WebMapping`` -> column, where the format defines it.
    defaults: Mapping[str, str] = MappingProxyType({})
    box_format: BoxFormat | None = None  # declared by the format
    finder: ImageFinder  # finds images by file name
    notes: Sequence[str] = ()  # what is left out or assumed, one message each
    missing: Sequence[str] = ()  # absent files that the data set names, as messages
    # Records that cannot be used, known without reading them -> why.
    bad: Mapping[int, str] = MappingProxyType({})

    @classmethod
    @abstractmethod
    def detects(cls, path: Path) -> bool:
        """True if the file or folder has this format."""

    @abstractmethod
    def __init__(self, path: Path, images: Path | None, mapping: WebMapping) -> None:
        """Read the description, not the images.

        Args:
            images: folder of the images; None: beside the texts.
        """

    @abstractmethod
    def __len__(self) -> int:
        """Number of records."""

    @abstractmethod
    def __getitem__(self, index: int) -> WebRecord:
        """One record.

        Raises:
            DataError, BadSample: it is damaged; the message begins with the file.
        """

    def location(self, index: int) -> str:
        """The file of a record, for messages about damage."""
        return str(self.path)

    def leave_out_missing(self) -> None:  # noqa: B027
        """Leave out records whose image file is absent (``--skip-missing``)."""


def image_of(value: Any) -> Any:
    """The only image of a list, numbers as file names, and base64 texts as bytes."""
    if isinstance(value, list) and len(value) <= 1:
        value = value[0] if value else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and (len(value) > _LONGEST_NAME or value.startswith("data:image/")):
        with contextlib.suppress(ValueError):
            return base64.b64decode(value.partition(",")[2] or value, validate=True)
    return value or None


def split_of(name: str) -> str:
    """``train``, ``val`` or ``test`` from the name of a split, file or folder; empty: none."""
    found = _SPLIT.findall(name.lower())
    return _SPLITS.get(found[-1], "val") if found else ""


def first_column(columns: Iterable[str], names: Iterable[str]) -> str | None:
    """The first of ``names`` that is a column."""
    known = set(columns)
    return next((name for name in names if name in known), None)


def known_column(path: Path, columns: Iterable[str], wanted: str, option: str) -> str:
    """``wanted``, if it is a column.

    Raises:
        DataError: it is not.
    """
    columns = list(columns)
    if wanted not in columns:
        raise DataError(f"{path}: mapping.{option}: no column {wanted!r}{nearest(wanted, columns)}")
    return wanted


def column_names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The columns of some rows, and ``a.b`` for the entries of mappings, in order."""
    found: dict[str, None] = {}
    for row in rows:
        for name, value in row.items():
            found[str(name)] = None
            if isinstance(value, dict):
                found |= dict.fromkeys(f"{name}.{inner}" for inner in value)
    return list(found)


def value_of(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column, or of an entry ``a.b`` of a mapping; None: absent."""
    if column in row:
        return row[column]
    outer, _, inner = column.partition(".")
    found = row.get(outer)
    return found.get(inner) if isinstance(found, dict) else None
