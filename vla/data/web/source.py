"""The source ``web_data``: images with texts, read by any web reader through a mapping."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from vla.config import check, register
from vla.data.fingerprint import file_states
from vla.data.images import encode_image
from vla.data.readers.files import SKIP_BAD
from vla.data.readers.pixels import decode_pixels
from vla.data.source import Source
from vla.data.web import open_web_reader
from vla.data.web.base import WebRecord, split_of, value_of
from vla.data.web.documents import forget
from vla.data.web.mapping import WebMapping
from vla.data.web.questions import Questions
from vla.data.web.values import plain_text
from vla.errors import BadSample, DataError
from vla.types import WebSample
from vla.utils.resize import fit_image


@register("source", "web_data")
class WebDataSource(Source):
    """Image-text data in any registered format (WebDataset, LLaVA, VQA v2, COCO, parquet...).

    Raises:
        DataError: an unknown or ambiguous format, missing files, or a mapping that does not fit.
    """

    def __init__(
        self,
        path: str,  # folder or file of the data set
        # webdataset, json (LLaVA and tables), vqa, coco_captions, coco_boxes or parquet (default:
        # detected).
        format: str | None = None,
        images: str | None = None,  # folder of the images (default: beside the texts)
        mapping: WebMapping | None = None,  # which columns are used, and how
        skip_missing: bool = False,  # leave out images whose files are absent
    ) -> None:
        self._options = (path, format, images, mapping or WebMapping(), skip_missing)
        options = mapping or WebMapping()
        self.reader = open_web_reader(
            Path(path), format, None if images is None else Path(images), options
        )
        if self.reader.missing and not skip_missing:
            raise DataError(
                f"{path}: {'; '.join(self.reader.missing)}; "
                "complete the download, or pack the available part with --skip-missing"
            )
        if skip_missing:
            self.reader.leave_out_missing()
        if len(self.reader) == 0:
            raise DataError(f"{path}: no images with texts; download the whole data set")
        forget()  # the reader has what it needs
        self.mapping, self.questions = options, Questions(self.reader, options)
        self.image_size, self.image_fit = (options.size, options.size), options.fit
        self.bad, self.notes = dict(self.reader.bad), tuple(self.reader.notes)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        """Other processes read the annotations themselves, once; they may be large."""
        path, form, images, mapping, skip = self._options
        return _reopen, (json.dumps([path, form, images, asdict(mapping), skip]),)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> WebSample:
        if index in self.bad:
            raise BadSample(self.bad[index])
        record = self.reader[index]
        where = f"{self.reader.location(index)}: record {record.key[:100]!r}"
        image = self._image(record, where)
        qa = self.questions.of(record, (image.shape[0], image.shape[1]), where)
        fitted = fit_image(image, self.image_size, self.image_fit)
        split, group = record.split, ""
        if self.mapping.split:
            split = split_of(plain_text(value_of(record.rows[0], self.mapping.split)))
        if self.mapping.group:
            group = plain_text(value_of(record.rows[0], self.mapping.group))
        data = encode_image(fitted, self.mapping.image_format)
        return WebSample(record.key, data, qa, split, group)

    def _image(self, record: WebRecord, where: str) -> np.ndarray:
        """(H, W, 3) uint8; black for texts without an image, which do not attend to it."""
        value = record.image
        if value is None:
            return np.zeros((*self.image_size, 3), np.uint8)
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, str):
            value = self.reader.finder.find(value, where)
        if isinstance(value, Path):
            value, where = value.read_bytes(), str(value)
        if not isinstance(value, bytes | np.ndarray):
            kind = type(value).__name__
            raise BadSample(
                f"{where}: expected an image or the name of its file, found {kind}; {SKIP_BAD}"
            )
        image = decode_pixels(value, where)
        if image.ndim == 2:
            raise BadSample(f"{where}: a depth image or an image of 16 bits; {SKIP_BAD}")
        return image

    def location(self, index: int) -> str:
        """The file of a record."""
        return self.reader.location(index)

    def files(self) -> dict[str, str]:
        """States of all files of the data set."""
        path, _, images, _, _ = self._options
        found = file_states(Path(path))
        if images is not None:
            found |= {f"{images}/{k}": v for k, v in file_states(Path(images)).items()}
        return found

    def describe(self) -> dict[str, Any]:
        """The path, and the options of the mapping that are not at their default."""
        options, default = asdict(self.mapping), asdict(WebMapping())
        return {
            "name": "web_data",
            "path": str(self.reader.path),
            "format": self.reader.format,
            "images": self._options[2],
            "mapping": {k: v for k, v in options.items() if v != default[k]},
            "size": self.mapping.size,
        }


@lru_cache(maxsize=1)
def _reopen(options: str) -> WebDataSource:
    path, form, images, mapping, skip = json.loads(options)
    return WebDataSource(path, form, images, check(mapping, WebMapping, ""), skip)
