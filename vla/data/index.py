"""``samples.jsonl``: where each sample of a packed data set is, and what it shows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from vla.errors import DataError

NAME = "samples.jsonl"


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One episode or web sample."""

    id: str  # key in the tar, unique in the data set: its number in the source
    key: str  # key in the source; may have any characters, and may occur twice
    shard: str  # file name of the tar
    offset: int  # bytes before the sample's first header in the tar
    size: int  # bytes of the sample in the tar, with headers
    steps: int  # rows of the episode; 0 for web samples
    task: str  # instruction of the first row; empty for web samples
    group: str  # scene or operator, see ``Mapping.group``; empty: not recorded
    split: str  # recorded split: "train" or "val"; empty: not recorded


def write_index(path: Path, rows: Iterable[SampleRow]) -> None:
    """Write one JSON object per line, under a temporary name."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(asdict(row)) + "\n")
    temporary.replace(path)


def read_index(path: Path) -> tuple[SampleRow, ...]:
    """The samples in the order of the source.

    Raises:
        DataError: missing or damaged.
    """
    names = [f.name for f in fields(SampleRow)]
    try:
        with path.open("rb") as file:
            return tuple(SampleRow(*(json.loads(line)[n] for n in names)) for line in file)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: missing or damaged ({error}); pack the data again") from error
