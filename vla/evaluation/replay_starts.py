"""The task and the seed from which each recorded episode is replayed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vla.benchmarks.base import Benchmark, Task
from vla.config.registry import nearest
from vla.errors import DataError
from vla.utils.csv_tables import read_table

_COLUMNS = ("key", "task", "seed")


@dataclass(frozen=True)
class Starts:
    """Choices of the user; what is not chosen comes from the recording."""

    task: str | None = None  # of every episode
    seed: int | None = None  # of the first episode; the next has seed + 1
    # Key of an episode -> its "task" and "seed" as texts; an empty text chooses nothing.
    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def of(
        self, benchmark: Benchmark, number: int, meta: Mapping[str, Any], instruction: str
    ) -> tuple[Task, int]:
        """Task and seed of the ``number``-th replayed episode.

        The first of these that is there: the row of its key, the choice for all episodes, what the
        recording says, the task with its instruction, the first default task; and for the seed
        ``number``.

        Raises:
            DataError: the chosen task is unknown.
        """
        tasks, row = {t.id: t for t in benchmark.tasks()}, self.rows.get(meta["key"], {})
        chosen, recorded = row.get("task") or self.task, meta["info"]
        if chosen and chosen not in tasks:
            raise DataError(f"{benchmark.name}: no task {chosen!r}{nearest(chosen, tasks)}")
        said = [t for t in tasks.values() if t.instruction and t.instruction == instruction]
        task = tasks.get(chosen or recorded.get("task", ""))
        task = task or next(iter([*said, *benchmark.default_tasks()]))
        seed = recorded.get("seed", number) if self.seed is None else self.seed + number
        return task, int(row.get("seed") or seed)


def read_starts(path: Path, keys: Sequence[str]) -> dict[str, dict[str, str]]:
    """The rows of a CSV file with the columns key, task, seed, by key.

    Args:
        keys: of the recorded episodes.

    Raises:
        DataError: other columns, a key that no episode has, or a seed that is no whole number.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a CSV file with {', '.join(_COLUMNS)}")
    rows = {}
    for number, row in enumerate(read_table(path), 2):
        where = f"{path}, line {number}"
        if not {"key"} <= set(row) <= set(_COLUMNS) or None in row.values():
            raise DataError(f"{where}: expected the columns {', '.join(_COLUMNS)}")
        if row["key"] not in keys:
            raise DataError(f"{where}: no episode {row['key']!r}{nearest(row['key'], keys)}")
        if row.get("seed") and not row["seed"].strip().isdigit():
            raise DataError(f"{where}: expected a whole number as seed, got {row['seed']!r}")
        rows[row["key"]] = row
    return rows
