"""RLDS and Open X-Embodiment episodes in TFRecord files, without TensorFlow."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vla.config.registry import register
from vla.data.readers.base import Field, Frames, OnDemand, Reader, Recording
from vla.data.readers.files import SKIP_BAD, natural_key, reading
from vla.data.readers.rlds_features import (
    METADATA,
    Column,
    holds_images,
    read_columns,
    read_images,
    read_numbers,
    read_texts,
)
from vla.data.readers.rlds_records import (
    dataset_name,
    missing_files,
    read_features,
    records,
    split_of,
)
from vla.data.row_texts import first_text, varying, written_once
from vla.errors import DataError

_SAMPLED = 8  # records that are read to find columns without data
# Text columns that are instructions, the first with a text counts.
_LANGUAGE = ("language", "lang", "task", "task_description", "natural_language", "prompt")
# Columns with exactly one number per step, from which the number of steps is known.
_COUNTED = ("is_first", "is_last", "is_terminal", "reward", "discount")


@register("reader", "rlds")
class RldsReader(Reader):
    """A folder with ``features.json`` and ``*.tfrecord*`` files; one record is one episode.

    The format does not record the rows per second.

    Raises:
        DataError: the description is missing or damaged, or no record can be read.
    """

    format, layout, order = "rlds", "features.json, *.tfrecord", 20

    @classmethod
    def detects(cls, path: Path) -> bool:
        """True if there is a ``features.json`` or a TFRecord file."""
        has_records = path.is_dir() and any(path.glob("*.tfrecord*"))
        return has_records or (path / "features.json").is_file()

    def __init__(self, path: Path) -> None:
        self.path = path
        found = (p for p in path.glob("*.tfrecord*") if p.is_file())
        files = sorted(found, key=lambda p: natural_key(p.name))
        if not files:
            raise DataError(
                f"{path}: features.json but no .tfrecord files; download the whole folder"
            )
        self.robot, self.missing = dataset_name(path), missing_files(files)
        self.columns, left_out = read_columns(path / "features.json")
        self.places = [record for file in files for record in records(file)]
        if not self.places:
            raise DataError(f"{path}: its .tfrecord files hold no episodes")
        splits = {split_of(file) for file in files}
        self.has_splits = {"train", "val"} <= splits
        self.notes = [
            *([f"left out, no fixed size per row: {', '.join(left_out)}"] if left_out else []),
            *(p.error for p in self.places if p.error),
            *self._look_at(self._sample()),
        ]
        self.fields = {name: c.field for name, c in self.columns.items()}

    def __len__(self) -> int:
        return len(self.places)

    def location(self, index: int) -> str:
        return str(self.places[index].file)

    def _sample(self) -> list[Any]:
        """The features of some readable records."""
        found: list[Any] = []
        errors: list[str] = []
        step = max(1, len(self.places) // _SAMPLED)
        order = [*range(0, len(self.places), step), *range(len(self.places))]
        for index in order:
            try:
                found.append(read_features(self.places[index], index))
            except ValueError as error:
                errors.append(str(error))
            if len(found) == _SAMPLED or (index == order[-1] and found):
                break
        if not found:
            raise DataError(errors[0])
        return found

    def _look_at(self, sample: list[Any]) -> Iterator[str]:
        """Drop columns without data, find images that are declared as byte strings; notes."""
        absent, images = [], []
        for name, column in list(self.columns.items()):
            if column.per_episode and column.field.kind != "text":
                del self.columns[name]  # a number of the episode is no column
                continue
            values = [f[name] for f in sample if name in f]
            encoded = [v for f in values for v in f.bytes_list.value[:1]]
            counts = [len(f.int64_list.value) + len(f.float_list.value) for f in values]
            if column.field.kind != "text" and not any(encoded) and not any(counts):
                absent.append(name)  # such as Bridge's image_1 to image_3
                del self.columns[name]
            elif column.field.kind == "text" and not values:
                del self.columns[name]
            elif column.field.kind == "text" and not column.per_episode and holds_images(encoded):
                images.append(name)
                self.columns[name] = replace(column, field=Field("image"), storage="image")
        if absent:
            yield f"declared in features.json but without data: {', '.join(absent)}"
        if images:
            yield f"byte strings that are images: {', '.join(images)}"

    @functools.cached_property
    def language(self) -> list[str]:
        """Text columns that may have the instruction, the most specific first."""

        def rank(name: str) -> tuple[int, bool]:
            short = name.rsplit("/", 1)[-1].lower()
            level = 0 if "instruction" in short else 1 if short in _LANGUAGE else 2
            return level, name.startswith(METADATA)

        texts = [n for n, c in self.columns.items() if c.field.kind == "text"]
        return sorted((n for n in texts if rank(n)[0] < 2), key=rank)

    def __getitem__(self, index: int) -> Recording:
        place = self.places[index]
        features = read_features(place, index)
        where = f"{place.file}: episode {index}"
        steps = self._steps(features, where)

        def get(name: str) -> Any:
            if name not in features:
                raise DataError(
                    f"{where} has no {name!r}, which features.json declares; {SKIP_BAD}"
                )
            return features[name]

        def numbers(name: str, column: Column) -> np.ndarray:
            with reading(f"{where}: {name!r}"):
                return read_numbers(get(name), column, steps, f"{where}: {name!r}")

        def texts(name: str, column: Column) -> list[str]:
            if name not in features:  # TFDS may leave out empty texts
                return [""] * steps
            with reading(f"{where}: {name!r}"):
                return read_texts(features[name], column, steps, f"{where}: {name!r}")

        def frames(name: str, column: Column) -> Frames:
            def read(rows: Sequence[int]) -> Iterator[np.ndarray]:
                return read_images(get(name), column, rows, steps, f"{where}: {name!r}")

            return read

        kinds: dict[str, dict[str, Column]] = {"numbers": {}, "text": {}, "image": {}}
        for name, column in self.columns.items():
            kinds[column.field.kind][name] = column
        language = OnDemand(_bound(texts, kinds["text"]))
        said = next(
            (t for t in (written_once(language[n]) for n in self.language) if first_text(t)), []
        )
        return Recording(
            f"{index:07d}",
            steps,
            self.fps,
            first_text(said),
            OnDemand(_bound(numbers, kinds["numbers"])),
            {n: frames(n, c) for n, c in kinds["image"].items()},
            language,
            varying(said),
            split_of(place.file) if self.has_splits else "",
        )

    def _steps(self, features: Any, where: str) -> int:
        for name in _COUNTED:
            if f"steps/{name}" in features:
                feature = features[f"steps/{name}"]
                return len(feature.int64_list.value or feature.float_list.value)
        for name, column in self.columns.items():
            if name not in features or column.per_episode:
                continue
            feature = features[name]
            count = len(feature.float_list.value or feature.int64_list.value)
            if column.field.kind == "numbers" and column.encoding == "none" and count:
                return count // column.field.dims
            if column.field.kind != "numbers" and len(feature.bytes_list.value):
                return len(feature.bytes_list.value)
        raise DataError(f"{where} has no numbers; this is not an RLDS episode")


def _bound(read: Callable[[str, Column], Any], columns: dict[str, Column]) -> dict[str, Any]:
    return {name: functools.partial(read, name, column) for name, column in columns.items()}
