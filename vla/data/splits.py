"""The split of a packed data set into training and validation samples.

``splits.json`` lists the validation samples. A new split rewrites this file only.
"""

from __future__ import annotations

import heapq
import json
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from vla.data.index import NAME as INDEX
from vla.data.index import SampleRow, read_index
from vla.data.manifest import load_manifest
from vla.data.remote import address, as_folder
from vla.errors import DataError
from vla.utils.disk import writing
from vla.utils.locking import exclusive_lock
from vla.utils.sealed import read_sealed, write_sealed

NAME = "splits.json"
VERSION = 1
BY = ("task", "group")
# Share of samples with a task of their own from which tasks are free text. They are strata only
# if the other tasks have room for validation, or if there are fewer than ``FEW`` samples.
FREE_TEXT = 0.9
FEW = 5
# Samples from which on there is at least one validation sample.
AT_LEAST = 3


@dataclass(frozen=True)
class Split:
    """Which samples are validation samples, and how they were chosen."""

    val: tuple[str, ...]  # ids of the validation samples, see ``SampleRow``; all others train
    fraction: float = 0.0  # requested share of validation samples
    seed: int = 0
    by: tuple[str, ...] = BY  # strata: "task", "group"
    origin: str = "drawn"  # drawn, recorded (in the source) or listed (a file of keys)

    @property
    def digest(self) -> str:
        """Checksum of the validation samples."""
        return sha256("\n".join(self.val).encode()).hexdigest()


def save_split(folder: Path, split: Split) -> None:
    """Write ``splits.json`` atomically."""
    write_sealed(folder / NAME, {"version": VERSION} | asdict(split))


def load_split(folder: Path) -> Split:
    """The split of a packed data set.

    Raises:
        DataError: ``splits.json`` is missing or damaged.
    """
    folder = as_folder(folder)
    advice = f"write a new one with `vla data split {folder} --val-fraction 0.05`"
    data = read_sealed(folder / NAME, VERSION, advice)
    try:
        fraction, seed, by = float(data["fraction"]), int(data["seed"]), tuple(data["by"])
        return Split(tuple(map(str, data["val"])), fraction, seed, by, str(data["origin"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder / NAME}: wrong content ({error!r}); {advice}") from error


def make_split(
    rows: Sequence[SampleRow],
    fraction: float,
    seed: int = 0,
    by: Sequence[str] = BY,
    recorded: bool = True,
) -> Split:
    """The recorded split if it has training and validation samples, else a random stratified one.

    Samples without a recorded split train if other samples have one.

    Args:
        fraction: share of validation samples, 0 to 1; at least one from three samples on.
        seed: of the draw; the same samples and seed give the same split.
        by: strata. "task": validation has every task where it is large enough, and every task
            keeps a training sample. "group": the same share of every scene or operator.
        recorded: False: ignore recorded splits.

    Raises:
        DataError: ``fraction`` or ``by`` is invalid.
    """
    if not 0 <= fraction <= 1:
        raise DataError(f"val_fraction: {fraction:g} is not a share; expected 0 to 1")
    unknown = [name for name in by if name not in BY]
    if unknown:
        raise DataError(f"split by {unknown[0]!r}: unknown; choose from {', '.join(BY)}")
    val = tuple(r.id for r in rows if r.split not in ("", "train"))  # also "test"
    if recorded and 0 < len(val) < len(rows):
        return Split(val, fraction, seed, tuple(by), "recorded")
    chosen = _draw(rows, fraction, seed, by)
    return Split(tuple(r.id for r in rows if r.id in chosen), fraction, seed, tuple(by))


def _draw(rows: Sequence[SampleRow], fraction: float, seed: int, by: Sequence[str]) -> set[str]:
    count = len(rows)
    total = max(int(count * fraction + 0.5), int(count >= AT_LEAST and fraction > 0))
    tasks: dict[str, list[SampleRow]] = defaultdict(list)
    sizes = Counter(r.task for r in rows)
    single = sum(n == 1 for n in sizes.values())
    room_in_tasks = count - len(sizes)
    free_text = single >= FREE_TEXT * count and room_in_tasks < total and count >= FEW
    by_task = "task" in by and not free_text
    for row in rows:
        tasks[row.task if by_task else ""].append(row)
    room = {task: len(members) - 1 for task, members in tasks.items()}
    shares = allocate({t: len(m) for t, m in tasks.items()}, room, total, seed)
    if "group" not in by:
        return {
            row.id
            for task, members in tasks.items()
            for row in random.Random(f"{seed}/{task}").sample(members, shares[task])
        }
    return _draw_groups(rows, tasks, shares, seed)


def allocate(
    sizes: Mapping[str, int], room: Mapping[str, int], total: int, seed: int
) -> dict[str, int]:
    """How many of ``total`` each stratum gets, in proportion to its size (largest remainder).

    Every stratum gets one first if ``total`` is large enough. Ties are decided by the seed.

    Args:
        sizes: stratum -> number of samples.
        room: stratum -> most samples that it may give.
    """
    given = dict.fromkeys(sizes, 0)
    able = [name for name in sizes if room[name] > 0]
    if total >= len(able):
        given |= dict.fromkeys(able, 1)
    whole, rng = max(1, sum(sizes.values())), random.Random(seed)
    queue = [(given[n] - total * sizes[n] / whole, rng.random(), n) for n in able]
    queue = [entry for entry in queue if given[entry[2]] < room[entry[2]]]
    heapq.heapify(queue)
    for _ in range(total - sum(given.values())):
        if not queue:
            break
        ahead, tie, name = heapq.heappop(queue)
        given[name] += 1
        if given[name] < room[name]:
            heapq.heappush(queue, (ahead + 1, tie, name))
    return given


def _draw_groups(
    rows: Sequence[SampleRow],
    tasks: Mapping[str, Sequence[SampleRow]],
    shares: Mapping[str, int],
    seed: int,
) -> set[str]:
    """Draw each task's share from its groups, so that every group gives about the same share."""
    sizes, owed, given = Counter(r.group for r in rows), Counter[str](), Counter[str]()
    cover = sum(shares.values()) >= len(sizes)  # every group can have a validation sample
    chosen: set[str] = set()
    for task, members in tasks.items():
        cells: dict[str, list[SampleRow]] = defaultdict(list)
        for row in random.Random(f"{seed}/{task}").sample(members, len(members)):
            cells[row.group].append(row)
        for group, inside in cells.items():
            owed[group] += shares[task] * len(inside) / len(members)  # type: ignore[assignment]
        for _ in range(shares[task]):
            group = max(
                (g for g in cells if cells[g]),
                key=lambda g: (
                    given[g] + 1 < sizes[g],  # a group keeps a training sample where possible
                    cover and given[g] == 0,
                    owed[g] - given[g],
                ),
            )
            chosen.add(cells[group].pop().id)
            given[group] += 1
    return chosen


def listed_split(rows: Sequence[SampleRow], file: Path) -> Split:
    """The split whose validation samples have the keys in a text file, one per line.

    Raises:
        DataError: no such file, no keys, or an unknown key.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({error}); give a text file of keys") from error
    wanted = {line.strip() for line in lines if line.strip()}
    known = {r.key for r in rows} | {r.id for r in rows}
    unknown = sorted(wanted - known)
    if unknown or not wanted:
        what = f"no sample has the key {json.dumps(unknown[0])}" if unknown else "has no keys"
        some = ", ".join(r.key for r in rows[:5])
        raise DataError(f"{file}: {what}; expected one key a line, such as {some}")
    val = tuple(r.id for r in rows if r.key in wanted or r.id in wanted)
    return Split(val, len(val) / len(rows), origin="listed")


def resplit(
    folder: Path,
    fraction: float | None = None,
    seed: int | None = None,
    by: str | None = None,
    val_keys: Path | None = None,
    recorded: bool = False,
) -> None:
    """Write a new ``splits.json``; nothing else changes. Without any choice it is left alone.

    Args:
        folder: packed data.
        fraction, seed: of a new draw; None: 0.05 and 0.
        by: strata of a new draw, with commas between them; None: task and group.
        val_keys: text file of the keys of the validation samples.
        recorded: use the recorded split.

    Raises:
        DataError: choices that exclude each other, no recorded split, or an invalid choice.
    """
    drawn = not (fraction is None and seed is None and by is None)
    if drawn + recorded + (val_keys is not None) > 1:
        raise DataError("give either options of a draw, --val-keys or --recorded")
    if not (drawn or recorded or val_keys):
        return
    if url := address(folder):
        raise DataError(f"{url}: split the data there, and copy its {NAME}")
    load_manifest(folder)
    rows = read_index(folder / INDEX)
    if val_keys is not None:
        split = listed_split(rows, val_keys)
    elif recorded:
        split = make_split(rows, 0.0)
        if split.origin != "recorded":
            raise DataError(f"{folder}: its source recorded no validation split; draw one")
    else:
        strata = BY if by is None else tuple(n.strip() for n in by.split(",") if n.strip())
        split = make_split(rows, 0.05 if fraction is None else fraction, seed or 0, strata, False)
    with writing(folder), exclusive_lock(folder):
        save_split(folder, split)
