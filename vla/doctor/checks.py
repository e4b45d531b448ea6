"""The doctor's examination, and its checks of values.

The thresholds are the constants at the top.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from vla.doctor.findings import Finding, Summary
from vla.doctor.labels import instructions, notes, row_labels, split_of_tasks
from vla.doctor.ranges import action_ranges, is_finite, not_finite, statistics_in_use
from vla.doctor.signals import action_state_lag, image_motion, timestamps
from vla.doctor.views import DatasetView, EpisodeView
from vla.utils.text import count

IDLE_SHARE = 0.3  # share of rows without motion, above which an episode is idle
DECODED_EPISODES = 40  # episodes whose images are decoded
_VALUES = (action_ranges, statistics_in_use, timestamps)  # also judge episodes with NaN


def examine(dataset: DatasetView) -> tuple[Summary, list[Finding]]:
    """Run all checks over all episodes; findings are sorted, errors first.

    An unreadable episode becomes a finding, and the other episodes are judged.
    """
    with np.errstate(all="ignore"):  # values near the limits of floats are judged, not warned of
        summary = _read(dataset)
        findings = [
            Finding("unreadable episode", "error", text, [key])
            for key, text in dataset.unreadable.items()
        ]
        episodes = summary.episodes
        if not episodes:
            text = "no episode can be read"
            findings.append(Finding("empty data set", "error", text))
        finite = [e for e in episodes if is_finite(e)]
        findings += not_finite(dataset, episodes)
        for check in (*_VALUES, lengths, duplicate_episodes, split_leakage):
            findings += check(dataset, episodes)
        for check in (instructions, row_labels, split_of_tasks, notes):
            findings += check(dataset, episodes)
        for check in (idle_rows, action_state_lag):
            findings += check(dataset, finite)
        findings += image_motion(dataset, Summary(finite, summary.image_motion))
    order = {"error": 0, "warning": 1, "note": 2}
    return summary, sorted(findings, key=lambda f: order[f.severity])


def _read(dataset: DatasetView) -> Summary:
    summary = Summary([])
    for episode in dataset.episodes():
        decode = len(summary.image_motion) < DECODED_EPISODES and episode.cameras
        if decode and len(episode.actions) >= 8:
            try:
                summary.image_motion[episode.key] = _motion(episode)
            except ValueError as error:
                dataset.unreadable[episode.key] = str(error)
                continue
        summary.episodes.append(episode)
    return summary


def _motion(episode: EpisodeView) -> np.ndarray:
    """Mean absolute difference between successive images, on about 32 x 32 grey pixels."""
    images = episode.images(episode.cameras[0], range(len(episode.actions)))
    small = np.stack(
        [i[:: max(1, i.shape[0] // 32), :: max(1, i.shape[1] // 32)].mean(2) for i in images]
    )
    return np.abs(np.diff(small, axis=0)).mean((1, 2))


def lengths(dataset: DatasetView, episodes: list[EpisodeView]) -> Iterator[Finding]:
    """Episodes of one row, and a single episode."""
    short = [e.key for e in episodes if len(e.actions) < 2]
    if short:
        every = len(short) == len(episodes)
        yield Finding(
            "episodes of one row",
            "error" if every else "warning",
            f"{len(short)} of {count(len(episodes), 'episode')} have one row and so no movement; "
            + ("check how the recording is divided" if every else "drop them"),
            short,
        )
    if len(episodes) == 1:
        text = "one episode: nothing is left for validation; record more"
        yield Finding("single episode", "warning", text, [episodes[0].key])


def idle_rows(dataset: DatasetView, episodes: list[EpisodeView]) -> Iterator[Finding]:
    """Many rows without motion."""
    moving = [e.state if e.state is not None else e.actions for e in episodes]
    moving = [np.asarray(values, np.float64) for values in moving]
    steps = [np.abs(np.diff(values, axis=0)) for values in moving if len(values) > 1]
    if not steps:
        return
    scale = np.quantile(np.concatenate(steps), 0.95, axis=0) + 1e-12
    idle = {}
    for e, values in zip(episodes, moving, strict=True):
        if len(values) > 4:
            share = float((np.abs(np.diff(values, axis=0)) < 0.02 * scale).all(1).mean())
            if share > IDLE_SHARE:
                idle[e.key] = share
    if idle:
        yield Finding(
            "idle rows",
            "warning",
            f"{len(idle)} of {len(episodes)} episodes have no motion in more than "
            f"{100 * IDLE_SHARE:.0f} % of their rows (up to {100 * max(idle.values()):.0f} %): "
            "a policy learns to wait; remove these rows",
            list(idle),
        )


def _fingerprint(episode: EpisodeView) -> str:
    rounded = np.ascontiguousarray(np.round(episode.actions, 6))
    return hashlib.sha256(rounded.tobytes()).hexdigest()


def duplicate_episodes(dataset: DatasetView, episodes: list[EpisodeView]) -> Iterator[Finding]:
    """Episodes with equal actions."""
    groups: dict[str, list[str]] = defaultdict(list)
    for e in episodes:
        groups[_fingerprint(e)].append(e.key)
    equal = [keys for keys in groups.values() if len(keys) > 1]
    if equal:
        listed = "; ".join(" = ".join(keys[:4]) for keys in equal[:5])
        yield Finding(
            "duplicate episodes",
            "warning",
            f"{sum(len(k) - 1 for k in equal)} episodes have the actions of another one: "
            f"{listed}; drop the copies",
            [k for keys in equal for k in keys[1:]],
        )


def split_leakage(dataset: DatasetView, episodes: list[EpisodeView]) -> Iterator[Finding]:
    """Episodes that are in the train and the validation split."""
    splits: dict[str, set[str]] = {"train": set(), "val": set()}
    keys: dict[str, str] = {}
    for e in episodes:
        mark = _fingerprint(e)
        splits.setdefault(e.split, set()).add(mark)
        keys[mark] = e.key
    shared = splits["train"] & splits["val"]
    if shared:
        yield Finding(
            "train-validation leakage",
            "error",
            f"{len(shared)} validation episodes are also in the train split; drop the copies",
            [keys[m] for m in shared],
        )
