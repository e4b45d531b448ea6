"""``vla scale --again``: a ladder's runs made once more, from nothing, and compared row for row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from vla.scaling.ladder import COLUMNS
from vla.tables import Differs

MEASURED = tuple(c for c in COLUMNS if c not in ("run", "skill", "seconds"))  # seconds are the machine's


def differences(was: Iterable[Mapping[str, str]], new: Iterable[Mapping[str, str]]) -> dict[tuple[str, str], list[str]]:
    """Of every (run, skill) of ``new`` the columns with another number than in ``was``; all of them where ``was`` has no such row."""
    known = {(r["run"], r["skill"]): r for r in was}
    return {(r["run"], r["skill"]): [c for c in MEASURED if r[c] != known.get((r["run"], r["skill"]), {}).get(c)] for r in new}


def compare(was: list[dict[str, str]], new: list[dict[str, str]], path: Path) -> None:
    """Says how many rows are the same.

    Raises:
        Differs: some are not; ``path`` has the new ones.
    """
    found = differences(was, new)
    other = {key: columns for key, columns in found.items() if columns}
    print(f"{len(found) - len(other)} of {len(found)} rows made again are the same, of {len(was)}", flush=True)
    if other:
        told = ", ".join(f"{run} ({' '.join(columns)})" for (run, _), columns in other.items())
        raise Differs(f"{path}: not the same when made again: {told}")
