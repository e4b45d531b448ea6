"""Time: even rows, and columns and pictures that belong to the same moment."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vla.doctor.findings import Finding, Summary
from vla.doctor.views import Patient, View

JITTER_SHARE = 0.2  # of a row's time
LAG_SECONDS = 0.35  # between an action and the state that follows it
LAG_GAIN = 0.1  # correlation that a lag must win over no lag
MISALIGNED_ROWS = 3  # rows between what the picture and what the numbers say moves
LAGS = 12  # rows tried each way
COMPARED = 40  # episodes whose columns are compared


def timing(patient: Patient, views: list[View]) -> Iterator[Finding]:
    """Uneven rows and holes."""
    jitter, holes = [], []
    for v in views:
        if v.times is None or len(v.times) < 3:
            continue
        gaps = np.diff(v.times) * v.fps
        if (gaps > 1.7).any() or (gaps <= 0).any():
            holes.append(v.key)
        elif np.quantile(np.abs(gaps - 1), 0.9) > JITTER_SHARE:
            jitter.append(v.key)
    if holes:
        yield Finding(
            "dropped rows",
            "error",
            f"{len(holes)} episodes have holes or steps back in their timestamps; drop or resample them",
            holes,
        )
    if jitter:
        yield Finding(
            "rate jitter",
            "warning",
            f"{len(jitter)} episodes have rows more than {100 * JITTER_SHARE:.0f} % off their time; resample them (mapping.rate_hz)",
            jitter,
        )


def _correlation(a: np.ndarray, b: np.ndarray, shift: int) -> float:
    """Of a[t] with b[t + shift]."""
    x, y = (a[: len(a) - shift], b[shift:]) if shift >= 0 else (a[-shift:], b[:shift])
    if len(x) < 5 or x.std() < 1e-9 or y.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def best_shift(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[int, float, float]:
    """(the shift by which the second series follows the first, over all pairs; its correlation; what that wins over none)."""
    shifts = range(-LAGS, LAGS + 1)
    weight = np.array([len(a) for a, _ in pairs], dtype=float)
    scores = {s: float(np.average([_correlation(a, b, s) for a, b in pairs], weights=weight)) for s in shifts}
    best = max(shifts, key=lambda s: scores[s])
    return best, scores[best], scores[best] - max(scores[0], scores[1])


def lag(patient: Patient, views: list[View]) -> Iterator[Finding]:
    """The state should follow an action at once: dims that correspond, compared as movement."""
    long = [v for v in views if v.state is not None and len(v.actions) > 2 * LAGS and v.state.shape[1] >= v.actions.shape[1] - 1]
    found, compared = [], 0
    for k, name in enumerate(patient.names):
        if name in patient.binary or not long:
            continue
        pairs = []
        for v in long[:COMPARED]:
            assert v.state is not None
            if k < v.state.shape[1]:
                moved = np.diff(v.state[:, k])
                wanted = v.actions[:-1, k]
                target = (
                    abs(_correlation(wanted, v.state[:-1, k], 0)) > 0.8
                )  # a target in the state's own units, rather than a movement
                pairs.append((np.diff(v.actions[:, k]) if target else wanted, moved))
        if pairs:
            shift, likeness, gain = best_shift(pairs)
            compared += likeness > 2 * LAG_GAIN  # a dim whose state visibly follows
            if gain > LAG_GAIN and abs(shift) / long[0].fps > LAG_SECONDS:
                found.append((name, shift))
    if found:
        text = ", ".join(f"{n} {s:+d} rows" for n, s in found)
        most = 2 * len(found) > compared
        why = "the columns are shifted against each other" if most else "a slow joint, or a column that is shifted alone"
        said = f"the state follows the action late (or early): {text}; {why}"
        yield Finding("action-state lag", "error" if most else "warning", said, [n for n, _ in found])


def pictures(patient: Patient, summary: Summary) -> Iterator[Finding]:
    """The pictures should move when the robot does."""
    pairs, frozen = [], []
    for v in summary.views:
        if v.key not in summary.motion:
            continue
        seen = summary.motion[v.key][1]
        own = v.state if v.state is not None else v.actions
        moved = np.abs(np.diff(own, axis=0)) / (np.abs(np.diff(own, axis=0)).mean(0) + 1e-9)
        if seen.max() < 0.05 and moved.mean() > 0.1:
            frozen.append(v.key)
        elif len(seen) > 2 * LAGS:
            pairs.append((moved.mean(1), seen))
    if frozen:
        yield Finding("frozen pictures", "error", f"{len(frozen)} episodes show one picture although the robot moves", frozen)
    if pairs:
        shift, _, gain = best_shift(pairs)
        if gain > LAG_GAIN and abs(shift) >= MISALIGNED_ROWS:
            yield Finding(
                "video misaligned",
                "error",
                f"pictures follow the numbers by {shift:+d} rows; the video and the table are shifted against each other",
                [],
            )
