"""Description files and tables of data sets, with clear errors."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from vla.data.readers.base import need, ranges
from vla.errors import BadSample, DataError

# The end of error messages about one bad episode.
SKIP_BAD = "repair it, or skip bad episodes with --skip-bad"
LFS_POINTER = b"version https://git-lfs"  # how a file begins whose content Git LFS did not fetch
_DECIMAL = re.compile(r"^\d+\.\d+$")


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn every error of a library into one message about one bad episode.

    Raises:
        DataError: a library failed; the message begins with ``where``.
    """
    try:
        yield
    except (DataError, BadSample):
        raise
    except Exception as error:  # libraries raise OSError, KeyError, RuntimeError and own classes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{where}: unreadable ({reason}); {SKIP_BAD}") from error


def refuse_pointer(path: Path) -> None:
    """Refuse a Git LFS pointer in place of a file's content.

    Raises:
        DataError: the file is a pointer.
    """
    try:
        with path.open("rb") as stream:
            begin = stream.read(len(LFS_POINTER))
    except OSError:  # the caller's library reports it
        return
    if begin == LFS_POINTER:
        raise DataError(f"{path}: a Git LFS pointer, not the data; run `git lfs pull`")


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key: runs of digits count as numbers, so that ``frame-2`` is before ``frame-10``."""
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(p)) if n % 2 else (1, p) for n, p in enumerate(parts) if p)


def numbering_gaps(names: Iterable[str]) -> list[str]:
    """A note about each numbered series of files in which some numbers are absent.

    Series with fewer files than absent numbers are no enumeration and are not noted.
    """
    series: dict[tuple[str, str], set[int]] = {}
    for name in names:
        if found := re.fullmatch(r"(.*?)(\d+)(\D*)", name):
            series.setdefault((found[1], found[3]), set()).add(int(found[2]))
    notes = []
    for (before, after), numbers in series.items():
        gone = [n for n in range(min(numbers), max(numbers)) if n not in numbers]
        if gone and len(gone) <= len(numbers):
            notes.append(f"{before}{ranges(gone)}{after}: absent between numbered files")
    return notes


def natural_sorted(paths: Iterable[Path]) -> list[Path]:
    """Files or folders in the natural order of their names without suffix.

    Raises:
        DataError: the order is ambiguous: ``1.png`` beside ``01.png`` or ``1.jpg``, or decimal
            numbers of several lengths such as ``0.5.png`` and ``0.25.png``.
    """
    stems = {p: p.name if p.suffix[1:].isdigit() else p.stem for p in paths}  # folders: run.10
    keyed = sorted((natural_key(stem), str(p), p) for p, stem in stems.items())
    files = [p for _, _, p in keyed]
    for (a, _, first), (b, _, second) in pairwise(keyed):
        if a == b and first.parent == second.parent:
            raise DataError(
                f"{first.parent}: {first.name} and {second.name} have the same number; "
                "delete one, or give every file its own number"
            )
    decimals = [float(p.stem) for p in files if _DECIMAL.match(p.stem)]
    if len(decimals) == len(files) and decimals != sorted(decimals):
        raise DataError(
            f"{files[0].parent}: the order of names such as {files[0].name} is ambiguous; "
            "write the same number of digits after the point in every name"
        )
    return files


def read_text(path: Path) -> str:
    """Text in UTF-8, or in UTF-16 with a byte-order mark. The mark is left out.

    Raises:
        DataError: the file is missing, a Git LFS pointer, or in another encoding.
    """
    refuse_pointer(path)
    try:
        data = path.read_bytes()
        utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing; download the whole data set") from error
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path}: unreadable ({error}); save it as UTF-8") from error


def read_json_file(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataError: the file is missing, damaged, or not an object.
    """
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not JSON ({error}); download it again") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected a JSON object, found a {type(found).__name__}")
    return found


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """One JSON object per line.

    Raises:
        DataError: the file is missing or damaged.
    """
    rows = []
    # Not splitlines(): it also splits at characters that JSON allows in texts, such as U+2028.
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}: line {number} is not JSON ({error}); download it again"
            ) from error
        if not isinstance(row, dict):
            raise DataError(f"{path}: line {number} is not a JSON object; download it again")
        rows.append(row)
    return rows


def read_table(path: Path, columns: list[str] | None = None, filters: Any = None) -> Any:
    """A parquet table.

    Raises:
        DataError: the file is missing, damaged, unfinished or a Git LFS pointer.
    """
    return _arrow(path, lambda q: q.read_table(path, columns=columns, filters=filters))


def read_schema(path: Path) -> Any:
    """The names and types of a parquet table's columns.

    Raises:
        DataError: as ``read_table``.
    """
    return _arrow(path, lambda q: q.read_schema(path))


def _arrow(path: Path, call: Any) -> Any:
    parquet = need("pyarrow.parquet")
    refuse_pointer(path)
    try:
        return call(parquet)
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing; download the whole data set") from error
    except Exception as error:  # pyarrow raises ArrowException, OSError, TypeError and more
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path}: damaged or unfinished table ({reason}); "
            "if you wrote it, call finalize() on the writer; else download it again"
        ) from error
