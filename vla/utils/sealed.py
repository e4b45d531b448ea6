"""JSON files that have their own checksum, so that damage is noticed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from vla.errors import DataError
from vla.utils.io import write_json


def write_sealed(path: Path, data: dict[str, Any]) -> None:
    """Write an object with the field ``sha256`` atomically, see ``read_sealed``."""
    plain = json.loads(json.dumps(data))
    write_json(path, plain | {"sha256": _digest(plain)})


def read_sealed(path: Path, version: int, advice: str) -> dict[str, Any]:
    """The object in a file of ``write_sealed``, without the checksum.

    Args:
        version: expected value of the field ``version``.
        advice: the fix, for the end of messages.

    Raises:
        DataError: missing, not a JSON object, another version, or changed after it was written.
    """
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing; {advice}") from error
    except (ValueError, RecursionError) as error:  # includes UnicodeDecodeError
        raise DataError(f"{path}: damaged, not JSON ({error}); {advice}") from error
    if not isinstance(data, dict):
        raise DataError(f"{path}: damaged, not a JSON object; {advice}")
    found = data.get("version")
    if found != version or isinstance(found, bool):
        raise DataError(
            f"{path}: written by another version of this program (format {found!r}, this one "
            f"reads {version}); {advice}"
        )
    if data.pop("sha256", None) != _digest(data):
        raise DataError(f"{path}: damaged or edited, its checksum differs; {advice}")
    return data


def _digest(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
