"""What ``vla pack`` and ``vla data split`` print about a packed data set."""

from __future__ import annotations

from pathlib import Path

from vla.data.packed import PackedFolder, open_packed
from vla.utils.tables import print_table
from vla.utils.text import count

TASKS = 20  # tasks in the table, at most
_ORIGINS = {"recorded": "as recorded", "listed": "from a list of keys"}


def print_summary(folder: Path) -> None:
    """Print totals, the split by task, and notes."""
    packed = open_packed(folder)
    manifest = packed.manifest
    noun = "sample" if manifest.kind == "web" else "episode"
    parts = [count(manifest.samples, noun)]
    if manifest.kind != "web":
        parts.append(count(manifest.steps, "step"))
    parts.append(count(len(manifest.shards), "shard"))
    if manifest.quarantined:
        parts.append(f"{manifest.quarantined} left out (quarantine.json)")
    print(f"{folder}: {', '.join(parts)}")
    _print_split(packed, noun)
    for note in manifest.notes:
        print(f"note: {note}")


def _print_split(packed: PackedFolder, noun: str) -> None:
    table, split = packed.table(), packed.split
    train, val = sum(row[1] for row in table), sum(row[2] for row in table)
    how = _ORIGINS.get(split.origin, f"drawn with seed {split.seed}")
    print(f"split: {count(train, noun)} for training, {val} for validation ({how})")
    if not any(task for task, _, _ in table):
        return
    print_table([{"task": t, "train": str(a), "val": str(b)} for t, a, b in table[:TASKS]])
    if len(table) > TASKS:
        print(f"  and {len(table) - TASKS} more")
    lost = sum(a == 0 for _, a, _ in table)
    if lost:
        print(
            f"note: {count(lost, 'task')} only in validation, not in training; "
            "for another split: vla data split"
        )
