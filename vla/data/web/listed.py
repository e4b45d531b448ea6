"""Readers whose records are listed in annotation files that are in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vla.data.web.base import WebReader, WebRecord
from vla.data.web.finder import ImageFinder
from vla.utils.text import count


class ListedReader(WebReader):
    """Records of annotation files; those with the same split and image are one record."""

    def __init__(self, path: Path, images: Path | None) -> None:
        self.path, self.finder = path, ImageFinder(path, images)
        self.notes: list[str] = []
        self.records: list[WebRecord] = []
        self.files: list[Path] = []  # of every record
        self.folders: list[str] = []  # part of the image's path, see ``ImageFinder.find``
        self._places: dict[tuple[str, str], int] = {}

    def add(
        self,
        file: Path,
        key: str,
        image: Any,
        row: dict[str, Any],
        split: str,
        folder: str = "",
        size: tuple[int, int] | None = None,
    ) -> None:
        """Add a row to the record of its image, or begin a new one."""
        shared = isinstance(image, str)
        if shared and (place := self._places.get((split, image))) is not None:
            self.records[place].rows.append(row)
            return
        if shared:
            self._places[split, image] = len(self.records)
        self.records.append(WebRecord(image if shared else key, image, [row], split, size))
        self.files.append(file)
        self.folders.append(folder)

    def check_images(self) -> None:
        """Refuse a data set of whose first images none exists.

        Raises:
            DataError: none exists; the message has the folders that were searched.
        """
        without = sum(r.image is None for r in self.records)
        if without:
            total = len(self.records)
            self.notes.append(f"{count(without, 'record')} of {total} without an image: text only")
        names = [r.image for r in self.records[:200] if isinstance(r.image, str)]
        if names:
            self.finder.check_some(names, self.path, self.folders[0])

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> WebRecord:
        r = self.records[index]
        if not isinstance(r.image, str):
            return r
        where = f"{self.files[index]}: image {r.key[:100]!r}"
        image = self.finder.find(r.image, where, self.folders[index])
        return WebRecord(r.key, image, r.rows, r.split, r.size)

    def location(self, index: int) -> str:
        """The annotation file of a record."""
        return str(self.files[index])

    def leave_out_missing(self) -> None:
        """Leave out records whose image file is absent."""
        total, pairs = len(self.records), zip(self.records, self.folders, strict=True)
        kept = [
            n
            for n, (r, folder) in enumerate(pairs)
            if not isinstance(r.image, str) or self.finder.exists(r.image, folder)
        ]
        self.records = [self.records[n] for n in kept]
        self.files = [self.files[n] for n in kept]
        self.folders = [self.folders[n] for n in kept]
        if len(kept) < total:
            self.notes.append(f"{count(total - len(kept), 'absent image')} of {total} left out")
