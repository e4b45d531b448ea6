"""The table of one episode in the plain folder format: CSV, JSON or npz."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.readers.files import SKIP_BAD, read_text, refuse_pointer
from vla.errors import DataError
from vla.utils.npz import open_npz

TABLES = (".csv", ".json", ".npz")
_INDEX = re.compile(r"^(unnamed: \d+)?$", re.IGNORECASE)  # header of pandas' index column
_SEPARATORS = ",;\t|"


@dataclass
class Table:
    """Columns of one episode; columns with the same prefix before a dot are one field."""

    steps: int
    numbers: dict[str, np.ndarray] = field(default_factory=dict)  # field -> (T, dims)
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)  # field -> names of its dims
    texts: dict[str, list[str]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)  # field of numbers -> a whole message


def read_steps(file: Path) -> Table:
    """The table in ``steps.csv``, ``steps.json`` or ``steps.npz``.

    Raises:
        DataError: it is damaged, empty or ambiguous. A column with a bad cell is only listed in
            ``problems``, because the mapping may not use it.
    """
    if file.suffix == ".npz":
        return _npz_table(file)
    rows, lines = (_csv_rows if file.suffix == ".csv" else _json_rows)(file)
    if not rows:
        raise DataError(f"{file}: no rows; {SKIP_BAD}")
    columns = {name: [row.get(name) for row in rows] for name in _names(rows)}
    return _typed(columns, lines, file)


def _names(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _csv_rows(file: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """Rows of a CSV, and the number of the line of each."""
    text = read_text(file)
    head = text.lstrip("\r\n").split("\n", 1)[0].strip("\r")
    widths = {s: len(next(csv.reader([head], delimiter=s), [])) for s in _SEPARATORS}
    best = max(widths.values())
    likely = [s for s, n in widths.items() if n == best and n > 1] or [","]
    if len(likely) > 1:
        raise DataError(f"{file}: the separator is ambiguous in {head!r}; use commas alone")
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=likely[0], strict=True)
        table = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{file}: unreadable table ({error}); {SKIP_BAD}") from error
    if not table:
        return [], []
    names = [name.strip() for name in table[0][1]]
    for line, row in table[1:]:
        if len(row) != len(names):
            raise DataError(
                f"{file}: line {line} has {len(row)} cells, the header has {len(names)}; {SKIP_BAD}"
            )
    repeated = [n for n in names if n and names.count(n) > 1]
    if repeated:
        raise DataError(f"{file}: two columns are called {repeated[0]!r}; rename one")
    kept = [k for k, name in enumerate(names) if not _INDEX.match(name)]
    for k in set(range(len(names))) - set(kept):
        cells = [row[k].strip() for _, row in table[1:]]
        if any(cells) and not all(cell.isdigit() for cell in cells):
            raise DataError(f"{file}: column {k + 1} has no name; write one in the header")
    rows = [{names[k]: row[k].strip() for k in kept} for _, row in table[1:]]
    return rows, [line for line, _ in table[1:]]


def _json_rows(file: Path) -> tuple[list[dict[str, Any]], list[int]]:
    try:
        found = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: not JSON ({error}); {SKIP_BAD}") from error
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise DataError(f"{file}: expected a list of rows, each an object such as {{'x': 1}}")
    return [_flat("", row) for row in found], []


def _flat(name: str, value: Any) -> dict[str, Any]:
    """A nested JSON value as columns ``field.0``, ``field.1``, ``field.x``..."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        parts = [_flat(f"{name}.{k}" if name else str(k), v) for k, v in items]
        return {key: v for part in parts for key, v in part.items()}
    return {name: value}


def _number(cell: Any) -> float | None:
    """A number, also from True or False; None for other cells."""
    if isinstance(cell, str):
        if cell.lower() in ("true", "false"):
            return float(cell.lower() == "true")
        if "_" in cell:  # Python reads 1_000 as a number
            return None
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return None


def _blank(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _typed(columns: dict[str, list[Any]], lines: list[int], file: Path) -> Table:
    """Columns as numbers or texts; the type of a column is judged over all rows."""
    steps = len(next(iter(columns.values()), []))
    table = Table(steps)
    values = {name: [_number(c) for c in cells] for name, cells in columns.items()}
    groups: dict[str, list[str]] = {}
    for name in columns:
        groups.setdefault(name.partition(".")[0], []).append(name)
    for group, names in groups.items():
        if not any(_mostly_numbers(columns[n], values[n]) for n in names):
            table.texts |= {n: ["" if _blank(c) else str(c) for c in columns[n]] for n in names}
            continue
        table.numbers[group] = np.array(
            [[np.nan if v is None else v for v in values[n]] for n in names]
        ).T
        table.names[group] = tuple(n.partition(".")[2] or n for n in names)
        bad = [(r, n) for n in names for r, v in enumerate(values[n]) if v is None]
        if bad:
            row, name = min(bad)
            place = f"row {row}" + (f" (line {lines[row]})" if lines else "")
            reason = _reason(columns[name][row])
            table.problems[group] = f"{file}: column {name!r}, {place}: {reason}; {SKIP_BAD}"
    return table


def _mostly_numbers(cells: list[Any], values: list[float | None]) -> bool:
    found = sum(v is not None for v in values)
    return found > 0 and 2 * found >= sum(not _blank(c) for c in cells)


def _reason(cell: Any) -> str:
    if _blank(cell):
        return "empty cell"
    if re.fullmatch(r"-?\d+,\d+", str(cell)):
        return f"{cell!r} has a decimal comma; write {str(cell).replace(',', '.')}"
    return f"{cell!r} is no number, but other rows or columns of this field are numbers"


def _npz_table(file: Path) -> Table:
    refuse_pointer(file)
    arrays, problems = dict[str, np.ndarray](), dict[str, str]()
    with open_npz(file, f"{file}: unreadable table") as loaded:
        for key in loaded:
            try:
                arrays[key] = loaded[key]
            except DataError as error:  # pickled objects or a false size; it may not be used
                problems[key] = str(error)
    lengths = {k: len(v) for k, v in arrays.items() if v.ndim}
    if not lengths:
        first = next(iter(problems.values()), f"{file}: no arrays with one row per step")
        raise DataError(f"{first}; {SKIP_BAD}")
    common = max(set(lengths.values()), key=list(lengths.values()).count)
    action = next((n for k, n in lengths.items() if k in ("action", "actions")), common)
    table = Table(action, problems=problems)
    table.numbers |= {key: np.full((action, 1), np.nan) for key in problems}
    for key, array in arrays.items():
        if array.dtype.kind in "US" and array.ndim == 1:
            table.texts[key] = [str(v) for v in array]
        elif array.dtype.kind in "fiub":
            if not array.ndim or len(array) != action:
                size = len(array) if array.ndim else "no"
                table.problems[key] = f"{file}: {key!r} has {size} rows of {action}; {SKIP_BAD}"
                array = np.full((action, array[:1].size if array.ndim else 1), np.nan)
            table.numbers[key] = array.astype(np.float64).reshape(action, -1)
    return table
