"""The doctor's checks of instructions and of the split into training and validation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from vla.data.splits import AT_LEAST
from vla.doctor.findings import Finding
from vla.doctor.views import DatasetView, EpisodeView
from vla.utils.text import count, shortened

BALANCE = 20.0  # episodes of the most frequent instruction, relative to the median instruction
_NAMED = 5  # instructions that a finding names


def instructions(dataset: DatasetView, episodes: list[EpisodeView]) -> Iterator[Finding]:
    """Empty instructions, only one instruction, or very unequal numbers of episodes."""
    empty = [e.key for e in episodes if not e.texts]
    if empty:
        text = f"{count(len(empty), 'episode')} without an instruction; set mapping.instruction"
        yield Finding("empty instruction", "error", text, empty)
    counts = Counter(text for e in episodes for text in e.texts)
    median = float(np.median(list(counts.values()))) if counts else 0.0
    if len(counts) == 1 and len(episodes) > 1:
        yield Finding(
            "single instruction",
            "note",
            f"only one unique instruction, {next(iter(counts))!r}: "
            "language conditioning cannot be learned",
        )
    elif counts and max(counts.values()) > BALANCE * median:
        name, n = counts.most_common(1)[0]
        yield Finding(
            "unbalanced instructions",
            "warning",
            f"{name!r} has {n} episodes, the median instruction {median:.0f}; drop some episodes",
        )


def row_labels(dataset: DatasetView, episodes: list[EpisodeView]) -> Iterator[Finding]:
    """Instructions that change within an episode, and rows without one."""
    changing = [e.key for e in episodes if len(e.texts) > 1]
    if changing:
        yield Finding(
            "changing instructions",
            "note",
            f"{len(changing)} of {count(len(episodes), 'episode')} change their instruction; each "
            "row is learned with its own, and action chunks end at a change",
            changing,
        )
    blank = {
        e.key: sum(not text.strip() for text in e.instructions)
        for e in episodes
        if e.texts and e.instructions
    }
    blank = {key: rows for key, rows in blank.items() if rows}
    if blank:
        yield Finding(
            "rows without instruction",
            "warning",
            f"{count(sum(blank.values()), 'row')} of {count(len(blank), 'episode')} have no "
            "instruction and are not trained; label them, or drop them from the recording",
            list(blank),
        )


def split_of_tasks(dataset: DatasetView, episodes: list[EpisodeView]) -> Iterator[Finding]:
    """An empty split, and tasks that are never trained; only for packed data."""
    splits = Counter(e.split for e in episodes)
    if not splits["train"] + splits["val"]:
        return
    fix = f"draw another split: vla data split {dataset.name} --val-fraction 0.1"
    if not splits["train"]:
        yield Finding("no training episodes", "error", f"all episodes are validation; {fix}")
    if not splits["val"]:
        yield Finding(
            "no validation episodes",
            "warning" if len(episodes) >= AT_LEAST else "note",
            f"{count(len(episodes), 'episode')}, none for validation; {fix}",
        )
    table = task_counts(episodes)
    lost = [(task, val) for task, train, val in table if splits["train"] and not train]
    several = [task for task, val in lost if val > 1]
    if several:
        listed = ", ".join(repr(shortened(task, 60)) for task in several[:_NAMED])
        yield Finding(
            "task without training episodes",
            "error",
            f"all episodes of {count(len(several), 'task')} are validation: {listed}; {fix}",
        )
    if len(lost) > len(several):
        yield Finding(
            "task only in validation",
            "note",
            f"{count(len(lost) - len(several), 'task')} with a single episode, which is validation",
        )


def task_counts(episodes: list[EpisodeView]) -> list[tuple[str, int, int]]:
    """(task, training episodes, validation episodes), the most frequent task first.

    An episode counts for each of its instructions. Episodes that are not packed yet count as
    training episodes.
    """
    counts: dict[str, Counter[str]] = {}
    for e in episodes:
        for task in e.texts or [""]:
            counts.setdefault(task, Counter())[e.split or "train"] += 1
    rows = sorted(counts.items(), key=lambda item: (-item[1].total(), item[0]))
    return [(task, n["train"], n["val"]) for task, n in rows]


def notes(dataset: DatasetView, episodes: list[EpisodeView]) -> Iterator[Finding]:
    """What the reader leaves out or assumes."""
    for note in dataset.notes:
        yield Finding("left out or assumed", "note", note)
