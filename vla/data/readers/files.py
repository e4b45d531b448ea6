"""Description files and tables of data sets, with clear errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vla.data.readers.base import need
from vla.errors import DataError

# The end of error messages about one bad episode.
SKIP_BAD = "repair it, or skip bad episodes with --skip-bad"


def read_json_file(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: missing; a LeRobot data set has it: download the whole folder"
        ) from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); download it again") from error


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """One JSON object per line.

    Raises:
        DataError: the file is missing or damaged.
    """
    if not path.is_file():
        raise DataError(f"{path}: missing; a LeRobot 2 data set has it: download the whole folder")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise DataError(
                    f"{path}: line {number} is not JSON ({error}); download it again"
                ) from error
    return rows


def read_table(path: Path, columns: list[str] | None = None, filters: Any = None) -> Any:
    """A parquet table.

    Raises:
        DataError: the file is missing, damaged or unfinished.
    """
    parquet, pyarrow = need("pyarrow.parquet"), need("pyarrow")
    try:
        return parquet.read_table(path, columns=columns, filters=filters)
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing; download the whole data set") from error
    except (pyarrow.ArrowInvalid, pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: damaged or unfinished table ({str(error).splitlines()[0]}); "
            "if you wrote it, call finalize() on the writer; else download it again"
        ) from error
