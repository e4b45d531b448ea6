"""The doctor's checks of values and texts, one function per kind of defect.

The thresholds are the constants at the top.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np

from vla.doctor.findings import Finding, Summary
from vla.doctor.signals import action_state_lag, image_motion, timestamps
from vla.doctor.views import DatasetView, EpisodeView
from vla.errors import DataError

NEAR_CONSTANT = 1e-3  # q99 - q01 as a share of the range, below which a dimension is near-constant
CLIPPED_SHARE = 0.02  # share of rows at the minimum or maximum, above which a dimension is clipped
BINARY_SHARE = 0.6  # above this share of rows at the ends, a dimension is probably binary
IDLE_SHARE = 0.3  # share of rows without motion, above which an episode is idle
BALANCE = 20.0  # episodes of the most frequent instruction, relative to the median instruction
DECODED_EPISODES = 40  # episodes whose images are decoded


def examine(dataset: DatasetView) -> tuple[Summary, list[Finding]]:
    """Run all checks over all episodes; findings are sorted, errors first.

    Raises:
        DataError: no episode can be read.
    """
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
    if not summary.episodes:
        reason = next(iter(dataset.unreadable.values()), "none given")
        raise DataError(f"{dataset.name}: no episode can be read; first reason: {reason}")
    findings = [
        Finding("unreadable episode", "error", text, [key])
        for key, text in dataset.unreadable.items()
    ]
    for check in (
        finite_values,
        action_ranges,
        idle_rows,
        timestamps,
        action_state_lag,
        duplicate_episodes,
        instructions,
        split_leakage,
    ):
        findings += check(dataset, summary.episodes)
    findings += image_motion(dataset, summary)
    order = {"error": 0, "warning": 1, "note": 2}
    return summary, sorted(findings, key=lambda f: order[f.severity])


def _motion(episode: EpisodeView) -> np.ndarray:
    """Mean absolute difference between successive images, on about 32 x 32 grey pixels."""
    images = episode.images(episode.cameras[0], range(len(episode.actions)))
    small = np.stack(
        [i[:: max(1, i.shape[0] // 32), :: max(1, i.shape[1] // 32)].mean(2) for i in images]
    )
    return np.abs(np.diff(small, axis=0)).mean((1, 2))


def finite_values(dataset: DatasetView, episodes: list[EpisodeView]) -> Iterator[Finding]:
    """NaN and infinite values."""
    bad = [
        e.key
        for e in episodes
        if not np.isfinite(e.actions).all()
        or (e.state is not None and not np.isfinite(e.state).all())
    ]
    if bad:
        text = f"{len(bad)} episodes have NaN or infinite values; repair or drop them"
        yield Finding("NaN or infinite values", "error", text, bad)


def action_ranges(dataset: DatasetView, episodes: list[EpisodeView]) -> Iterator[Finding]:
    """Constant and near-constant dimensions, and many values at the ends of the range."""
    pooled = np.concatenate([e.actions for e in episodes])
    pooled = pooled[np.isfinite(pooled).all(1)]
    low, high = pooled.min(0), pooled.max(0)
    q01, q99 = np.quantile(pooled, [0.01, 0.99], axis=0)
    names = dataset.names
    constant = [n for n, a, b in zip(names, low, high, strict=True) if b - a == 0]
    if constant:
        yield Finding(
            "constant dimension",
            "warning",
            f"{', '.join(constant)}: never changes; leave it out of mapping.action, "
            "or check the recording",
            constant,
        )
    free = [n not in constant and n not in dataset.binary for n in names]
    near = [
        n
        for n, f, a, b, p, q in zip(names, free, low, high, q01, q99, strict=True)
        if f and q - p < NEAR_CONSTANT * (b - a)
    ]
    if near:
        yield Finding(
            "near-constant dimension",
            "warning",
            f"{', '.join(near)}: 98 % of the rows are within a thousandth of the range, so "
            "quantile normalisation fails; remove outliers, or use normalise: min_max",
            near,
        )
    at_end = dict(zip(names, ((pooled == low) | (pooled == high)).mean(0), strict=True))
    known = [n for n, f in zip(names, free, strict=True) if f and n not in near]
    binary = [n for n in known if at_end[n] > BINARY_SHARE]
    if binary:
        yield Finding(
            "possibly binary dimension",
            "note",
            f"{', '.join(binary)}: nearly always at the minimum or maximum; "
            "if it is binary, set mapping.binary",
            binary,
        )
    clipped = [n for n in known if CLIPPED_SHARE < at_end[n] <= BINARY_SHARE]
    if clipped:
        shares = ", ".join(f"{n} {100 * at_end[n]:.0f} %" for n in clipped)
        yield Finding(
            "clipped dimension",
            "warning",
            f"rows at the minimum or maximum: {shares}; the recorder or controller clips there",
            clipped,
        )


def idle_rows(dataset: DatasetView, episodes: list[EpisodeView]) -> Iterator[Finding]:
    """Many rows without motion."""
    moving = [e.state if e.state is not None else e.actions for e in episodes]
    steps = [np.abs(np.diff(values, axis=0)) for values in moving if len(values) > 1]
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


def instructions(dataset: DatasetView, episodes: list[EpisodeView]) -> Iterator[Finding]:
    """Empty instructions, only one instruction, or very unequal numbers of episodes."""
    empty = [e.key for e in episodes if not e.instruction.strip()]
    if empty:
        text = f"{len(empty)} episodes have no instruction; set mapping.instruction"
        yield Finding("empty instruction", "error", text, empty)
    counts = Counter(e.instruction for e in episodes if e.instruction.strip())
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
