"""COCO's JSON: captions of images, or labelled bounding boxes."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from vla.config.registry import register
from vla.data.web.base import split_of
from vla.data.web.documents import readable
from vla.data.web.listed import ListedReader
from vla.data.web.mapping import WebMapping
from vla.errors import DataError
from vla.utils.text import count


class CocoReader(ListedReader):
    """A JSON file with ``images`` and ``annotations``, or a folder with such files.

    Raises:
        DataError: no such annotations, damaged ones, or none of the images exists.
    """

    field: ClassVar[str]  # what every annotation has

    @classmethod
    def detects(cls, path: Path) -> bool:
        """True if a JSON file has images and annotations of this kind."""
        return any(_has(content, cls.field) for _, content in readable(path))

    def __init__(self, path: Path, images: Path | None, mapping: WebMapping) -> None:
        super().__init__(path, images)
        for file, content in readable(path):
            if _has(content, self.field):
                try:
                    self._read(file, content)
                except (KeyError, TypeError, AttributeError) as error:
                    reason = f"has no {error}" if isinstance(error, KeyError) else str(error)
                    raise DataError(
                        f"{file}: an image or annotation {reason}; repair or download the file"
                    ) from error
        if not self.records:
            raise DataError(f"{path}: no image has usable annotations with {self.field!r}")
        self.check_images()

    def _read(self, file: Path, content: dict[str, Any]) -> None:
        rows, left = self._rows(content), 0
        # "train2014" of captions_train2014.json, where several folders have a file of the name
        split, folder = split_of(file.stem), file.stem.rpartition("_")[2]
        for image in content["images"]:
            size = (image["width"], image["height"]) if {"width", "height"} <= set(image) else None
            name = str(image["file_name"])
            for row in rows.get(image["id"], []):
                self.add(file, name, name, row, split, folder, size)
            left += image["id"] not in rows
        if left:
            what = count(left, "image")
            self.notes.append(f"{file.name}: {what} without usable annotations left out")

    def _rows(self, content: dict[str, Any]) -> dict[Any, list[dict[str, Any]]]:
        """Image id -> its rows."""
        rows: dict[Any, list[dict[str, Any]]] = {}
        for row in content["annotations"]:
            rows.setdefault(row["image_id"], []).append({self.field: row[self.field]})
        return rows


@register("web_reader", "coco_captions")
class CocoCaptionReader(CocoReader):
    """COCO captions; a record is an image with all its captions."""

    format, layout, order = "coco_captions", "captions of images in *.json (COCO)", 20
    field, columns = "caption", ("caption",)
    defaults = MappingProxyType({"answer": "caption"})


@register("web_reader", "coco_boxes")
class CocoBoxReader(CocoReader):
    """COCO instances; a record is an image with the labels that occur once in it."""

    format, layout, order = "coco_boxes", "bounding boxes of images in *.json (COCO)", 21
    field, columns = "bbox", ("bbox", "label")
    defaults = MappingProxyType({"boxes": "bbox", "labels": "label"})
    box_format = "xywh"

    def _rows(self, content: dict[str, Any]) -> dict[Any, list[dict[str, Any]]]:
        names = {c["id"]: str(c["name"]) for c in content["categories"]}
        groups: dict[tuple[Any, str], list[dict[str, Any]]] = {}
        for row in content["annotations"]:
            groups.setdefault((row["image_id"], names[row["category_id"]]), []).append(row)
        rows: dict[Any, list[dict[str, Any]]] = {}
        for (image, label), boxes in groups.items():
            if len(boxes) == 1 and not boxes[0].get("iscrowd"):
                rows.setdefault(image, []).append({"bbox": boxes[0]["bbox"], "label": label})
        return rows


def _has(content: Any, field: str) -> bool:
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        return False
    rows = content.get("annotations")
    return isinstance(rows, list) and any(isinstance(r, dict) and field in r for r in rows[:100])
