"""JSON annotation files, read once and recognised by their content."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from vla.data.readers.files import natural_key, read_text
from vla.errors import DataError

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")
# Folders below a data set that have annotations.
_BESIDE = ("annotations", "annotation", "questions", "labels", "texts")
_MOST = 60  # more files in one folder are not annotations of a whole data set
_HEAVY = "segmentation"  # polygons, which nobody here reads, are most of COCO's bytes


def documents(path: Path) -> list[Path]:
    """The annotation files of a data set: the file itself, or those of the folder, in order."""
    if path.is_file():
        return [path] if path.suffix.lower() in SUFFIXES else []
    folders = [path, *(path / name for name in _BESIDE)]
    found = [p for f in folders if f.is_dir() for p in f.iterdir() if _is_document(p)]
    return sorted(found, key=lambda p: natural_key(str(p))) if len(found) <= _MOST else []


def _is_document(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def load(path: Path) -> Any:
    """The content of a JSON file, or the rows of a JSON-lines, CSV or TSV file.

    Raises:
        DataError: missing, damaged, or not UTF-8.
    """
    stat = path.stat()
    return _load(path, stat.st_size, stat.st_mtime_ns)


def forget() -> None:
    """Free the files that ``load`` keeps."""
    _load.cache_clear()


@lru_cache(maxsize=64)
def _load(path: Path, size: int, time: int) -> Any:
    text, suffix = read_text(path), path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return list(_table(path, text, "\t" if suffix == ".tsv" else None))
    if suffix != ".json":
        return list(_lines(path, text))
    try:
        return json.loads(text, object_hook=_without_polygons)
    except (ValueError, RecursionError) as error:
        rows = _json_lines_in_disguise(path, text)
        if rows is not None:
            return rows
        raise DataError(f"{path}: not JSON ({error}); download it again") from error


def _without_polygons(value: dict[str, Any]) -> dict[str, Any]:
    value.pop(_HEAVY, None)
    return value


def _lines(path: Path, text: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: U+2028 is no end
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            message = f"{path}: line {number} is not JSON ({error}); download it again"
            raise DataError(message) from error
        if not isinstance(row, dict):
            raise DataError(f"{path}: line {number} is not a JSON object; download it again")
        yield row


def _json_lines_in_disguise(path: Path, text: str) -> list[dict[str, Any]] | None:
    """Rows of a ``.json`` file with one object per line; None: it is not such a file."""
    if "\n" not in text.strip() or not text.lstrip().startswith("{"):
        return None
    try:
        return list(_lines(path, text))
    except DataError:
        return None


def _table(path: Path, text: str, delimiter: str | None) -> Iterator[dict[str, str]]:
    lines = text.replace("\r\n", "\n").split("\n")
    if delimiter is None:
        delimiter = max(",;|\t", key=lines[0].count)
    try:
        for row in csv.DictReader(lines, delimiter=delimiter, strict=True):
            if None in row or None in row.values():
                raise ValueError(f"row {row} has another number of cells than the header")
            yield {name.strip(): value for name, value in row.items()}
    except (csv.Error, ValueError) as error:
        raise DataError(f"{path}: not a table ({str(error)[:200]}); repair it") from error


def readable(path: Path) -> Iterator[tuple[Path, Any]]:
    """Annotation files of a data set with their content.

    Raises:
        DataError: ``path`` is a file and is damaged, or no file of the folder can be read.
    """
    problem: DataError | None = None
    some = False
    for file in documents(path):
        try:
            content = load(file)
        except DataError as error:
            problem = problem or error
            continue
        some = True
        yield file, content
    if problem is not None and not some:
        raise problem


def vqa_rows(content: Any, part: str) -> list[dict[str, Any]] | None:
    """The ``questions`` or ``annotations`` of VQA v2, which are in separate files; or None."""
    rows = content.get(part) if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows or not isinstance(rows[0], dict):
        return None
    if part == "questions":
        apart = {"answer", "answers"}.isdisjoint(rows[0])
        return rows if apart and {"question", "image_id", "question_id"} <= set(rows[0]) else None
    return rows if {"question_id", "answers"} <= set(rows[0]) else None


def rows_of(content: Any) -> list[dict[str, Any]] | None:
    """The rows of a document with one row per image, question or conversation; None: it has none.

    Known forms: a list of objects; ``{"data": [...]}`` and ``{"images": [...]}``, also with other
    names of the only list; and a mapping from ids to objects.
    """
    if isinstance(content, list):
        return content if content and isinstance(content[0], dict) else None
    if not isinstance(content, dict) or not content:
        return None
    if vqa_rows(content, "questions") or vqa_rows(content, "annotations"):
        return None
    lists = [v for v in content.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
    if len(lists) == 1:
        return lists[0]
    if not lists and all(isinstance(v, dict) for v in content.values()) and len(content) > 1:
        return [{"id": key} | value for key, value in content.items()]
    return None
