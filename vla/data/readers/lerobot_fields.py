"""The fields of a LeRobot data set, from ``meta/info.json`` and from its tables."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vla.data.readers.base import Field
from vla.data.readers.files import read_schema, read_table
from vla.data.readers.lerobot_columns import kind_of
from vla.data.readers.lerobot_info import Info, declared_field, named_field
from vla.errors import DataError

_SAMPLED = 8  # tables whose columns are looked at, evenly spread
_READABLE = {  # kind of field -> kinds of columns
    "numbers": ("numbers", "texts", "text"),
    "text": ("text",),
    "image": ("image", "numbers", "binary", "large_binary", "text"),
}


@dataclass
class Fields:
    """All fields, and why some of them cannot be read."""

    fields: dict[str, Field]
    unusable: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_fields(info: Info, tables: list[Path], videos: list[str]) -> Fields:
    """Declared features and further columns, checked against some tables.

    Args:
        tables: the tables of the episodes, in order; the first ones may be damaged.
        videos: features that are videos and not columns.

    Raises:
        DataError: no table can be read.
    """
    found, reasons = Fields({}), dict[str, str]()
    columns = _columns(tables)
    declared = {k: f for k, f in info.features.items() if k in columns or f or not columns}
    for key in [*declared, *(k for k in columns if k not in declared)]:
        feature = declared.get(key, {})
        known, problem = declared_field(key, feature, info.path)
        if key not in videos and columns:
            if key not in columns:
                reasons[key] = "declared, but not in the tables"
            else:
                column_type, table = columns[key]
                kind = kind_of(column_type)
                actual = _actual(known, kind, key, table, key in declared)
                if actual.kind == "numbers" and actual.dims != known.dims:  # no declared shape
                    actual, problem = named_field(key, feature, actual.dims, info.path)
                known = actual
                if kind not in _READABLE[known.kind]:
                    reasons[key] = f"of type {kind}"
        found.fields[key] = known
        if problem:
            found.unusable[key] = problem
    for key, reason in reasons.items():
        found.unusable[key] = f"column {key!r} is {reason} ({info.path})"
    left_out = {**reasons, **{k: v for k, v in found.unusable.items() if k not in reasons}}
    if left_out:
        listed = ", ".join(f"{k} ({v})" for k, v in left_out.items())
        found.notes.append(f"columns that cannot be used: {listed}")
    return found


def _columns(tables: list[Path]) -> dict[str, tuple[Any, Path]]:
    """Column -> its type and the first table with it, from some tables; damaged ones are skipped.

    Raises:
        DataError: no table can be read.
    """
    files = list(dict.fromkeys(tables))
    count = min(_SAMPLED, len(files))
    picked = [files[n * (len(files) - 1) // max(1, count - 1)] for n in range(count)]
    found: dict[str, tuple[Any, Path]] = {}
    problem: DataError | None = None
    for file in dict.fromkeys([*picked, *files]):
        if found and file not in picked:
            break
        try:
            schema = read_schema(file)
        except DataError as error:
            problem = problem or error
            continue
        for column in schema:
            if column.name not in found or kind_of(found[column.name][0]) == "null":
                found[column.name] = (column.type, file)
    if problem and not found:
        raise problem
    return found


def _actual(known: Field, kind: str, key: str, table: Path, declared: bool) -> Field:
    """The declared field, corrected by the column's type."""
    if kind == "image":
        return known if known.kind == "image" else Field("image", depth=known.depth)
    if known.kind == "image":  # arrays or encoded bytes without a struct
        return known
    if kind == "text" and (known.kind == "text" or not declared or not known.dims):
        return Field("text")
    if known.kind == "numbers" and known.dims:
        return known
    if kind in ("numbers", "texts"):
        return replace(known, kind="numbers", dims=_dims(table, key))
    return known


def _dims(table: Path, key: str) -> int:
    """Numbers per row, from the first row that is not empty."""

    def count(cell: Any) -> int:
        return sum(map(count, cell)) if isinstance(cell, list) else 1

    cells = read_table(table, [key]).column(0)
    return next((count(c.as_py()) for c in cells if c.is_valid), 1)
