"""Results as CSV files, and the tables of a README that are made from them."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from vla.config import ConfigError


class Differs(ValueError):
    """What was made again is not what is committed; the message names both."""


def read_table(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, str]]:
    """Rows of a CSV file; none if there is no file.

    Raises:
        ConfigError: other columns than expected (None: any).
    """
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if columns is not None and tuple(reader.fieldnames or ()) != tuple(columns):
            raise ConfigError(f"{path}: its columns are not {', '.join(columns)}; move it away")
        return list(reader)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Whole or not at all: temporary name, then rename. columns: those of the first row if not given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns or rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)


def add_rows(path: Path, rows: Sequence[Mapping[str, Any]], lock: Path, columns: Sequence[str] | None = None) -> None:
    """At the end of a CSV file; none is lost where several processes that name the same ``lock`` file add."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        write_table(path, [*read_table(path, columns), *rows], columns)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _found(path: Path, name: str) -> re.Match[str]:
    pattern = rf"(<!-- {re.escape(name)} -->\n\n)(.*?)(\n\n<!-- /{re.escape(name)} -->)"
    match = re.search(pattern, path.read_text(encoding="utf-8"), re.DOTALL)
    if match is None:
        raise ConfigError(
            f"{path}: no place for the table {name!r}; put <!-- {name} --> and <!-- /{name} --> where it goes, blank lines between"
        )
    return match


def block(path: Path, name: str) -> str:
    """What stands between ``<!-- name -->`` and ``<!-- /name -->`` in a Markdown file.

    Raises:
        ConfigError: the file has no such place.
    """
    return _found(path, name)[2]


def put(path: Path, name: str, text: str) -> None:
    """Write ``text`` there; see ``block``."""
    match = _found(path, name)
    whole = match.string
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(whole[: match.start(2)] + text + whole[match.end(2) :], encoding="utf-8")
    temporary.replace(path)
