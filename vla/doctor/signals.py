"""The doctor's checks of time: timestamps, and the alignment of actions, state and images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vla.doctor.findings import Finding, Summary
from vla.doctor.views import DatasetView, EpisodeView

JITTER_SHARE = 0.2  # deviation of a timestamp, as a share of the time between rows
LAG_SECONDS = 0.35  # largest normal delay between an action and the following state
LAG_GAIN = 0.1  # increase of the correlation that a lag must bring over no lag
MISALIGNED_ROWS = 3  # smallest shift between images and numbers that is reported
TREND_ROWS = 9  # slower changes of speed are left out: they go with any shift of a smooth movement
AGREEING = 0.5  # share of episodes that have the shift of all (to a row) if it is one of the video
LAGS = 12  # rows tried in each direction
COMPARED_EPISODES = 40  # episodes whose actions and states are compared


def timestamps(dataset: DatasetView, episodes: list[EpisodeView]) -> Iterator[Finding]:
    """Gaps and jitter of the timestamps."""
    jitter, gaps = [], []
    for e in episodes:
        if e.times is None or len(e.times) < 3:
            continue
        spacing = np.diff(e.times) * e.fps
        if not ((spacing > 0) & (spacing <= 1.7)).all():  # also NaN
            gaps.append(e.key)
        elif np.quantile(np.abs(spacing - 1), 0.9) > JITTER_SHARE:
            jitter.append(e.key)
    if gaps:
        yield Finding(
            "timestamp gaps",
            "error",
            f"{len(gaps)} episodes have gaps or backward steps in their timestamps; "
            "drop or resample them",
            gaps,
        )
    if jitter:
        yield Finding(
            "timestamp jitter",
            "warning",
            f"{len(jitter)} episodes have rows more than {100 * JITTER_SHARE:.0f} % off their "
            "time; resample them (mapping.rate_hz)",
            jitter,
        )


def _correlation(a: np.ndarray, b: np.ndarray, shift: int) -> float:
    """Correlation of ``a[t]`` with ``b[t + shift]``; 0 if either is constant or too short."""
    x, y = (a[: len(a) - shift], b[shift:]) if shift >= 0 else (a[-shift:], b[:shift])
    if len(x) < 5 or x.std() < 1e-9 or y.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def best_shift(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[int, float, float]:
    """The shift with the highest correlation between two series, over all pairs.

    Returns:
        The shift in rows (positive: the second series is later), its correlation, and the increase
        over a shift of 0 or 1.
    """
    shifts = range(-LAGS, LAGS + 1)
    weight = np.array([len(a) for a, _ in pairs], dtype=float)
    scores = {
        s: float(np.average([_correlation(a, b, s) for a, b in pairs], weights=weight))
        for s in shifts
    }
    best = max(shifts, key=lambda s: scores[s])
    return best, scores[best], scores[best] - max(scores[0], scores[1])


def action_state_lag(dataset: DatasetView, episodes: list[EpisodeView]) -> Iterator[Finding]:
    """State dimensions that follow the action of the same index too late, or too early."""
    long = [
        e
        for e in episodes
        if e.state is not None
        and len(e.actions) > 2 * LAGS
        and e.state.shape[1] >= e.actions.shape[1] - 1
    ]
    found, compared = [], 0
    for k, name in enumerate(dataset.names):
        if name in dataset.binary:
            continue
        pairs = [p for e in long[:COMPARED_EPISODES] if (p := _movements(e, k)) is not None]
        if pairs:
            shift, correlation, gain = best_shift(pairs)
            compared += correlation > 2 * LAG_GAIN  # the state follows this dimension
            if gain > LAG_GAIN and abs(shift) / long[0].fps > LAG_SECONDS:
                found.append((name, shift))
    if found:
        most = 2 * len(found) > compared
        cause = (
            "the columns are shifted against each other"
            if most
            else "a slow joint, or one shifted column"
        )
        listed = ", ".join(f"{n} {s:+d} rows" for n, s in found)
        yield Finding(
            "action-state lag",
            "error" if most else "warning",
            f"the state follows the action too late or too early: {listed}; {cause}",
            [n for n, _ in found],
        )


def _movements(episode: EpisodeView, k: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Commanded and measured movement of dimension ``k``; None without such a state dimension."""
    assert episode.state is not None
    if k >= episode.state.shape[1]:
        return None
    measured, command = np.diff(episode.state[:, k]), episode.actions[:-1, k]
    # An action that correlates with the state is an absolute target, not a movement.
    absolute = abs(_correlation(command, episode.state[:-1, k], 0)) > 0.8
    return (np.diff(episode.actions[:, k]) if absolute else command), measured


def image_motion(dataset: DatasetView, summary: Summary) -> Iterator[Finding]:
    """Images that do not change, or change at another time than the robot."""
    pairs, frozen = [], []
    for e in summary.episodes:
        if e.key not in summary.image_motion:
            continue
        changes = summary.image_motion[e.key]
        steps = np.abs(np.diff(e.state if e.state is not None else e.actions, axis=0))
        moved = steps / (steps.mean(0) + 1e-9)
        if changes.max() < 0.05 and moved.mean() > 0.1:
            frozen.append(e.key)
        elif len(changes) > 2 * LAGS:
            pairs.append((_without_trend(moved.mean(1)), _without_trend(changes)))
    if frozen:
        text = f"{len(frozen)} episodes repeat one image although the robot moves; drop them"
        yield Finding("frozen images", "error", text, frozen)
    if pairs:
        shift, _, gain = best_shift(pairs)
        agree = np.mean([abs(best_shift([pair])[0] - shift) <= 1 for pair in pairs])
        if gain > LAG_GAIN and MISALIGNED_ROWS <= abs(shift) < LAGS and agree >= AGREEING:
            yield Finding(
                "video misaligned",
                "error",
                f"images follow the numbers by {shift:+d} rows; "
                "the video and the table are shifted against each other",
            )


def _without_trend(values: np.ndarray) -> np.ndarray:
    """(T,) values minus their running mean over ``TREND_ROWS``."""
    window = np.ones(TREND_ROWS)
    sums = np.convolve(values, window, "same")
    return np.asarray(values - sums / np.convolve(np.ones(len(values)), window, "same"))
