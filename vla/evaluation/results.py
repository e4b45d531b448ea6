"""Results of ``vla eval`` on disk: rows as episodes end, and the complete file."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vla.benchmarks.base import EpisodeResult
from vla.errors import DataError
from vla.utils.notes import note


class ResultRows:
    """A file of finished episodes, one JSON row each, from which an evaluation continues.

    Its first row identifies the evaluation. A half-written last row, after a kill, is dropped. The
    files of another evaluation, or of a finished one, move to the folder ``previous-N`` beside it.

    Args:
        identity: what the results depend on, besides task and seed.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.finished: dict[tuple[str, int], EpisodeResult] = {}
        head = json.dumps({"evaluation": identity}, sort_keys=True)
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        rows = text.splitlines()
        if rows and rows[0] == head:
            for row in rows[1:]:
                try:
                    result = EpisodeResult(**json.loads(row))
                except (ValueError, TypeError):
                    break
                self.finished[result.task, result.seed] = result
        else:
            _move_away(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [json.dumps(asdict(r)) for r in self.finished.values()]
        self._file = path.open("w", encoding="utf-8")
        self._write(head, *kept)

    def append(self, result: EpisodeResult) -> None:
        """Write one finished episode to the disk."""
        self._write(json.dumps(asdict(result)))

    def _write(self, *rows: str) -> None:
        self._file.write("".join(f"{row}\n" for row in rows))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self, complete: bool) -> None:
        """Close the file; ``complete``: the results are elsewhere, so it is removed."""
        self._file.close()
        if complete:
            self.path.unlink()


def _move_away(path: Path) -> None:
    """Move the files of an earlier evaluation from the folder of ``path``."""
    folder = path.parent
    names = (path.name, path.with_suffix(".json").name, "tasks.csv", "rollouts.*")
    found = [file for name in names for file in sorted(folder.glob(name))]
    if not found:
        return
    number = next(n for n in itertools.count(1) if not (folder / f"previous-{n}").exists())
    target = folder / f"previous-{number}"
    target.mkdir()
    for file in found:
        file.rename(target / file.name)
    note(f"{folder}: the files of an earlier evaluation are in {target.name} now")


def saved_state(folder: Path) -> dict[str, list[int]]:
    """File of a saved policy -> size and time of its last change (ns)."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    states = [(path.relative_to(folder).as_posix(), path.stat()) for path in files]
    return {name: [state.st_size, state.st_mtime_ns] for name, state in states}


def read_results(path: Path) -> list[EpisodeResult]:
    """Episodes of a ``results.json``.

    Raises:
        DataError: no such file, or not what ``vla eval`` writes.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["episodes"]
        return [EpisodeResult(**row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not the results of `vla eval` ({error}); give the results.json it wrote"
        ) from error
