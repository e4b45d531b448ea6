"""Parts of a packed data set: some tasks, and some training demonstrations of each task."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

from vla.data.config import DataConfig
from vla.data.index import SampleRow
from vla.data.packed import PackedFolder


def subset_rows(packed: PackedFolder, config: DataConfig, split: str) -> list[SampleRow]:
    """The samples of a split that a run uses, in the order of the source.

    They depend on the index, the split and ``subset_seed`` alone. A task is an instruction, as in
    the split. Tasks are drawn among those with training episodes. Web samples are all kept.
    """
    rows, wanted = packed.rows(split), config.max_episodes_per_task
    if packed.manifest.kind != "episode" or not _is_part(config):
        return rows
    tasks = chosen_tasks(packed, config)
    rows = [row for row in rows if row.task in tasks]
    if split != "train" or wanted is None:
        return rows
    by_task: dict[str, list[SampleRow]] = defaultdict(list)
    for row in rows:
        by_task[row.task].append(row)
    kept: set[str] = set()
    for task, own in by_task.items():  # shuffled first, so that more of them include these
        random.Random(f"{config.subset_seed}/{task}").shuffle(own)
        kept.update(row.id for row in own[:wanted])
    return [row for row in rows if row.id in kept]


def chosen_tasks(packed: PackedFolder, config: DataConfig) -> set[str]:
    """The instructions that a run trains on; a larger ``max_tasks`` keeps those of a smaller."""
    tasks = list(dict.fromkeys(row.task for row in packed.rows("train")))
    random.Random(f"{config.subset_seed}/tasks").shuffle(tasks)
    return set(tasks[: config.max_tasks])


def shortages(packed: PackedFolder, config: DataConfig) -> list[str]:
    """What the options ask for beyond the data, one line each; a run then uses all there is."""
    if packed.manifest.kind != "episode" or not _is_part(config):
        return []
    tasks, found = chosen_tasks(packed, config), []
    if config.max_tasks is not None and config.max_tasks > len(tasks):
        found.append(f"{packed.folder}: data.max_tasks={config.max_tasks}, but it has {len(tasks)}")
    counts = Counter(row.task for row in subset_rows(packed, config, "train"))
    wanted = config.max_episodes_per_task
    few = [n for n in counts.values() if wanted is not None and n < wanted]
    if few:
        found.append(
            f"{packed.folder}: data.max_episodes_per_task={wanted}, but {len(few)} of "
            f"{len(tasks)} tasks have fewer training episodes, at least {min(few)}"
        )
    return found


def _is_part(config: DataConfig) -> bool:
    return not (config.max_tasks is None and config.max_episodes_per_task is None)
