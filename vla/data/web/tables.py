"""Hugging Face ``datasets``: shards of parquet, or the Arrow files of ``save_to_disk``."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from functools import lru_cache
from pathlib import Path
from typing import Any

from vla.config.registry import register
from vla.data.readers.base import need
from vla.data.readers.files import natural_key, read_schema, reading, refuse_pointer
from vla.data.web.base import (
    WebReader,
    WebRecord,
    first_column,
    image_of,
    known_column,
    split_of,
    value_of,
)
from vla.data.web.finder import ImageFinder
from vla.data.web.mapping import WebMapping
from vla.data.web.records import IMAGES
from vla.errors import BadSample, DataError

_OF = re.compile(r"(.*?)(\d{4,6})-of-(\d{4,6})(.*)")
_KEYS = ("id", "question_id", "questionId", "key", "uid")


@register("web_reader", "parquet")
class TableReader(WebReader):
    """A ``.parquet`` or ``.arrow`` file, or a folder with such files at any depth.

    Names of classes are read from the metadata of ``datasets``. Splits are those of the names of
    files and folders.

    Raises:
        DataError: damaged files, files with different columns, or no column with images.
    """

    format, layout, order = "parquet", "*.parquet or *.arrow with images (datasets)", 50

    @classmethod
    def detects(cls, path: Path) -> bool:
        """True if a table has a column with a usual name of images."""
        return any(first_column(_schema(file).names, IMAGES) for file in _files(path)[:1])

    def __init__(self, path: Path, images: Path | None, mapping: WebMapping) -> None:
        self.path, self.finder = path, ImageFinder(path, images)
        self.files = _files(path)
        if not self.files:
            raise DataError(f"{path}: no .parquet or .arrow file")
        schemas = [_schema(file) for file in self.files]
        first = schemas[0]
        for file, schema in zip(self.files, schemas, strict=True):
            if schema.names != first.names:
                raise DataError(
                    f"{file}: its columns {', '.join(schema.names)} differ from those of "
                    f"{self.files[0].name} ({', '.join(first.names)}); pack one of them"
                )
        names = [f.relative_to(path).as_posix() if path.is_dir() else f.name for f in self.files]
        self.splits = [split_of(name) for name in names]
        self.missing = _missing(names) if path.is_dir() else []
        self.names = [name.rpartition(".")[0] for name in names]
        self.classes = _classes(first)
        self.columns = _columns(first)
        image = mapping.image or first_column(self.columns, IMAGES)
        if image is None:
            raise DataError(
                f"{path}: no column is called image; name it with source.mapping.image; "
                f"columns are {', '.join(self.columns)}"
            )
        self.image = known_column(path, self.columns, image, "image")
        self.starts, self.sizes = [0], [_row_counts(file) for file in self.files]
        for counts in self.sizes:
            self.starts.append(self.starts[-1] + sum(counts))

    def __len__(self) -> int:
        return self.starts[-1]

    def _place(self, index: int) -> tuple[int, int]:
        """File and row in it."""
        file = bisect_right(self.starts, index) - 1
        return file, index - self.starts[file]

    def __getitem__(self, index: int) -> WebRecord:
        file, row = self._place(index)
        where = f"{self.files[file]}: row {row}"
        with reading(where):
            values = self._row(file, row)
        image = image_of(value_of(values, self.image))
        if isinstance(image, list):
            raise BadSample(f"{where}: {len(image)} images; a web sample has one")
        key = next((str(values[k]) for k in _KEYS if values.get(k) is not None), None)
        return WebRecord(key or f"{self.names[file]} {row}", image, [values], self.splits[file])

    def _row(self, file: int, row: int) -> dict[str, Any]:
        group = 0
        while row >= self.sizes[file][group]:
            row -= self.sizes[file][group]
            group += 1
        table = _rows(self.files[file], group)
        values: dict[str, Any] = table.slice(row, 1).to_pylist()[0]
        return {name: _named(value, self.classes.get(name)) for name, value in values.items()}

    def location(self, index: int) -> str:
        """The file of a row."""
        return str(self.files[self._place(index)[0]])


def _files(path: Path) -> list[Path]:
    files = path.rglob("*") if path.is_dir() else [path]
    found = [
        p
        for p in files
        if p.suffix in (".parquet", ".arrow") and not p.name.startswith((".", "cache-"))
    ]
    return sorted(found, key=lambda p: natural_key(str(p)))


def _missing(names: list[str]) -> list[str]:
    """Messages about absent files of ``<name>-00001-of-00003`` series."""
    series: dict[tuple[str, str, str], set[int]] = {}
    for name in names:
        if part := _OF.fullmatch(name):
            series.setdefault((part[1], part[3], part[4]), set()).add(int(part[2]))
    return [
        f"{before}*-of-{total}{after}: {int(total) - len(found)} of {int(total)} files are absent"
        for (before, total, after), found in series.items()
        if len(found) < int(total)
    ]


def _arrow(file: Path) -> Any:
    """The memory-mapped table of an Arrow file, in the stream format or the file format."""
    pa, ipc = need("pyarrow"), need("pyarrow.ipc")
    refuse_pointer(file)
    try:
        try:
            return ipc.open_stream(pa.memory_map(str(file))).read_all()
        except pa.ArrowInvalid:
            return ipc.open_file(pa.memory_map(str(file))).read_all()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{file}: damaged Arrow file ({reason}); download it again") from error


def _schema(file: Path) -> Any:
    return _arrow(file).schema if file.suffix == ".arrow" else read_schema(file)


def _row_counts(file: Path) -> list[int]:
    """Rows of every part that is read at once."""
    if file.suffix == ".arrow":
        return [_arrow(file).num_rows]
    with reading(str(file)):
        meta = need("pyarrow.parquet").ParquetFile(file).metadata
        return [meta.row_group(n).num_rows for n in range(meta.num_row_groups)]


@lru_cache(maxsize=2)
def _rows(file: Path, group: int) -> Any:
    """A row group; rows are read in order, so the last one is kept."""
    if file.suffix == ".arrow":
        return _arrow(file)
    return need("pyarrow.parquet").ParquetFile(file).read_row_group(group)


def _columns(schema: Any) -> list[str]:
    """Names of the columns, and ``a.b`` for the entries of structs."""
    types, found = need("pyarrow.types"), []
    for field in schema:
        found.append(field.name)
        kind = field.type
        if types.is_struct(kind):
            inner = [kind.field(n).name for n in range(kind.num_fields)]
            found += [f"{field.name}.{name}" for name in inner if name not in ("bytes", "path")]
    return found


def _classes(schema: Any) -> dict[str, Any]:
    """Column -> names of classes, from the features that ``datasets`` records."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])
        features = about["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    found = {name: _class_names(feature) for name, feature in features.items()}
    return {name: names for name, names in found.items() if names}


def _class_names(feature: Any) -> Any:
    """The class names inside a feature: a list, a mapping of such, or None."""
    if isinstance(feature, list):
        return _class_names(feature[0]) if feature else None
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "ClassLabel" or isinstance(feature.get("names"), list):
        names = feature.get("names")
        return [str(n) for n in names] if isinstance(names, list) else None
    if isinstance(feature.get("feature"), dict | list):  # Sequence, List
        return _class_names(feature["feature"])
    inner = {k: _class_names(v) for k, v in feature.items() if not k.startswith("_")}
    return {k: v for k, v in inner.items() if v} or None


def _named(value: Any, names: Any) -> Any:
    """A value with the numbers of classes replaced by their names; -1 is no class."""
    if names is None or value is None:
        return value
    if isinstance(value, list):
        return [_named(v, names) for v in value]
    if isinstance(value, dict):
        inner = names if isinstance(names, dict) else {}
        return {k: _named(v, inner.get(k)) for k, v in value.items()}
    if isinstance(names, list) and isinstance(value, int):
        return names[value] if 0 <= value < len(names) else None
    return value
