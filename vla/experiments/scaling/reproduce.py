"""``vla scale --reproduce``: compare a ladder's new rows with its table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from vla.errors import ReproductionMismatch
from vla.experiments.scaling.ladder import COLUMNS

# not the time, which depends on the machine, and counts that older tables do not have
_OTHERS = ("run", "task", "seconds", "axis", "demonstrations", "tasks")
MEASURED = tuple(c for c in COLUMNS if c not in _OTHERS)


def differences(
    old: Iterable[Mapping[str, str]], new: Iterable[Mapping[str, str]]
) -> dict[tuple[str, str], list[str]]:
    """(run, task) of every new row -> columns with other numbers; all columns if it is unknown."""
    known = {(r["run"], r["task"]): r for r in old}
    return {
        (r["run"], r["task"]): [
            c for c in MEASURED if r[c] != known.get((r["run"], r["task"]), {}).get(c)
        ]
        for r in new
    }


def compare(old: list[dict[str, str]], new: list[dict[str, str]], out: Path) -> None:
    """Print how many rows are equal.

    Raises:
        ReproductionMismatch: some rows differ.
    """
    found = differences(old, new)
    different = {key: columns for key, columns in found.items() if columns}
    equal = len(found) - len(different)
    print(
        f"{equal} of {len(found)} reproduced rows are equal; the table has {len(old)}", flush=True
    )
    if different:
        names = ", ".join(f"{run} ({' '.join(c)})" for (run, _), c in different.items())
        raise ReproductionMismatch(f"{out / 'reproduced.csv'}: different numbers: {names}")
