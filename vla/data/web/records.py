"""Annotation files with one row per image, question or conversation.

LLaVA's conversations, TextVQA, DocVQA, VizWiz, GQA, ChartQA, Karpathy's caption splits,
``metadata.jsonl`` of image folders, and CSV tables have this form.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vla.config.registry import register
from vla.data.web.base import (
    column_names,
    first_column,
    image_of,
    known_column,
    split_of,
    value_of,
)
from vla.data.web.documents import readable, rows_of
from vla.data.web.listed import ListedReader
from vla.data.web.mapping import WebMapping
from vla.errors import DataError

IMAGES = (
    *("image", "images", "image_path", "image_paths", "img", "img_path", "imgname", "image_file"),
    *("image_name", "file_name", "filename", "filepath", "path", "file", "picture", "photo"),
    *("image_id", "imageId", "img_id"),
)
_KEYS = ("id", "question_id", "questionId", "key", "uid")
_SAMPLED = 50  # rows of every file that give the columns


@register("web_reader", "json")
class RecordReader(ListedReader):
    """A ``.json``, ``.jsonl``, ``.csv`` or ``.tsv`` file, or a folder of them.

    Rows with the same image are one record, so that an image is in one split only.

    Raises:
        DataError: no file has rows, no column has images, or none of the images exists.
    """

    format, layout, order = "json", "rows with an image and texts in *.json, *.jsonl or *.csv", 40

    @classmethod
    def detects(cls, path: Path) -> bool:
        """True if an annotation file has rows with a usual name of the image's column."""
        return any(_is_table(content) for _, content in readable(path))

    def __init__(self, path: Path, images: Path | None, mapping: WebMapping) -> None:
        super().__init__(path, images)
        wanted = mapping.image
        tables: list[tuple[Path, list[dict[str, Any]]]] = []
        others: list[str] = []
        for file, content in readable(path):
            rows = rows_of(content)
            if rows is not None and _is_table(content, wanted):
                tables.append((file, rows))
            elif file != path:
                others.append(file.name)
        if not tables:
            raise DataError(
                f"{path}: no JSON or CSV file with rows that name an image; its column is set "
                "with source.mapping.image"
            )
        if others:
            self.notes.append(f"files without such rows: {', '.join(others[:5])}")
        self.columns = column_names(_checked(tables, _SAMPLED))
        image = wanted or first_column(self.columns, IMAGES)
        self.image = known_column(path, self.columns, str(image), "image")
        for file, rows in tables:
            known_column(
                file, column_names(_checked([(file, rows)], _SAMPLED)), self.image, "image"
            )
            for number, row in enumerate(_checked([(file, rows)])):
                key = next((str(row[k]) for k in _KEYS if row.get(k) is not None), "")
                own = row.get("split")
                split = split_of(own if isinstance(own, str) else file.stem)
                self.add(file, key or f"{file.name} {number}", self._image(row), row, split)
        self.check_images()

    def _image(self, row: dict[str, Any]) -> Any:
        """The image of a row: a file name, or what the column has; None without one."""
        image = image_of(value_of(row, self.image))
        folder = row.get("filepath")  # Karpathy's splits have the folder beside the file's name
        if self.image in ("filename", "file_name") and isinstance(folder, str) and folder:
            return f"{folder}/{image}"
        return image


def _is_table(content: Any, image: str | None = None) -> bool:
    """True for rows with the column ``image``, or with a usual name of it."""
    rows = rows_of(content)
    if rows is None:
        return False
    some = [r for r in rows[:_SAMPLED] if isinstance(r, dict)]
    return first_column(column_names(some), [image] if image else IMAGES) is not None


def _checked(
    tables: Iterable[tuple[Path, list[dict[str, Any]]]], most: int | None = None
) -> list[dict[str, Any]]:
    found = []
    for file, rows in tables:
        for number, row in enumerate(rows[:most]):
            if not isinstance(row, dict):
                raise DataError(f"{file}: row {number} is no object; repair or download it again")
            found.append(row)
    return found
