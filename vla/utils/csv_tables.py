"""Results as CSV files, and tables between markers of a Markdown file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from vla.errors import ConfigError
from vla.utils.io import write_text


def read_table(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, str]]:
    """Rows of a CSV file; no rows if there is no file.

    Raises:
        ConfigError: the file has other columns than ``columns`` (None: any), or a row has more or
            fewer cells.
    """
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if columns is not None and tuple(reader.fieldnames or ()) != tuple(columns):
            raise ConfigError(
                f"{path}: expected the columns {', '.join(columns)}; move the file away"
            )
        rows = []
        for row in reader:
            if None in row or None in row.values():
                raise ConfigError(
                    f"{path}, line {reader.line_num}: expected {len(reader.fieldnames or ())} "
                    "cells; restore the file, or move it away"
                )
            rows.append(row)
        return rows


def write_table(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> None:
    """Write a CSV file as ``atomic_file`` does.

    Args:
        path: the file.
        rows: the rows.
        columns: None: those of the first row.
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, list(columns or rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, file.getvalue())


def add_rows(
    path: Path, rows: Sequence[Mapping[str, Any]], lock: Path, columns: Sequence[str] | None = None
) -> None:
    """Append rows to a CSV file; safe for several processes that use the same ``lock`` file."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        write_table(path, [*read_table(path, columns), *rows], columns)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _find_block(path: Path, name: str) -> re.Match[str]:
    pattern = rf"(<!-- {re.escape(name)} -->\n)(.*?)(<!-- /{re.escape(name)} -->)"
    match = re.search(pattern, path.read_text(encoding="utf-8"), re.DOTALL)
    if match is None:
        raise ConfigError(
            f"{path}: no place for the table {name!r}; add the lines <!-- {name} --> and "
            f"<!-- /{name} -->"
        )
    return match


def block(path: Path, name: str) -> str:
    """The text between ``<!-- name -->`` and ``<!-- /name -->`` in a Markdown file.

    Raises:
        ConfigError: the file lacks these markers.
    """
    return _find_block(path, name)[2].strip("\n")


def check_blocks(path: Path) -> None:
    """Refuse a Markdown file with a first marker of a block and no last one; see ``block``.

    Raises:
        ConfigError: the file lacks a marker.
    """
    if path.is_file():
        for name in re.findall(r"^<!-- (\w+) -->$", path.read_text(encoding="utf-8"), re.MULTILINE):
            _find_block(path, name)


def put(path: Path, name: str, text: str) -> None:
    """Replace the text between the markers; see ``block``."""
    match = _find_block(path, name)
    whole = match.string
    before, after = whole[: match.start(2)], whole[match.end(2) :]
    write_text(path, f"{before}\n{text}\n\n{after}")
