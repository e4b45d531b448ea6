"""Shift between images and measured state within the recordings, without the policy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vla.diagnose.lines import MIN_EPISODES, VIDEO, Line, clearly_lower, not_judged
from vla.diagnose.looks import reduced
from vla.doctor.views import EpisodeView
from vla.utils.text import count

CHECK = "recorded video timing"
_SIDE = 12  # pixels of the reduced images
_LAGS = 8  # rows in each direction
_EPISODES, _ROWS = 24, 30  # compared
_COMPONENTS = 16  # principal components of the images
_USEFUL = 0.3  # explained share of the state below which the images say too little


def recorded_shift(episodes: Sequence[EpisodeView], rate_hz: float) -> list[Line]:
    """Find the rows whose images explain the state best.

    A smooth map from reduced images to the state is fitted on other episodes, for every lag. A
    camera delay of one row is normal.
    """
    long = [e for e in episodes if e.state is not None and len(e.actions) >= 20 and e.cameras][
        :: max(1, len(episodes) // _EPISODES)
    ][:_EPISODES]
    if len(long) < MIN_EPISODES:
        found = count(len(long), "episode")
        return [
            not_judged(CHECK, f"{found} with images, state and 20 rows; {MIN_EPISODES} are needed")
        ]
    lags = max(2, min(_LAGS, min(len(e.actions) for e in long) // 4))
    images, states = [], []
    for episode in long:
        total = min(len(episode.actions), 2 * _ROWS + 2 * lags)
        images.append(_features(episode, total))
        states.append(np.asarray(episode.state)[:total].astype(np.float64))
    by_lag = _errors_by_lag(images, states, lags)
    if by_lag is None:
        return [not_judged(CHECK, "the state does not change")]
    errors, explained = by_lag
    best = min(errors, key=lambda k: errors[k].mean())
    near = min((-1, 0, 1), key=lambda k: errors[k].mean())
    text = (
        f"images explain {100 * explained[best]:.1f} % of the state's variance at {best:+d} rows, "
        f"{100 * explained[0]:.1f} % at 0"
    )
    if explained[best] < _USEFUL:
        return [not_judged(CHECK, text)]
    if abs(best) < 2 or not clearly_lower(errors[best], errors[near], 0.85, tests=2 * lags):
        return [Line(CHECK, "ok", text)]
    seconds = abs(best) / rate_hz
    side = "later" if best > 0 else "earlier"
    return [
        Line(
            CHECK,
            "warn" if abs(best) == 2 and best > 0 and seconds < 0.15 else "fail",
            f"video shifted: images that show a state are {abs(best)} rows ({seconds:.2f} s) "
            f"{side} in the data; {text}",
            "align video and table (for example start times of the files), pack and train again",
            VIDEO,
        )
    ]


def _features(episode: EpisodeView, total: int) -> np.ndarray:
    """(total, F) reduced images of all cameras."""
    columns = []
    for camera in episode.cameras:
        images = episode.images(camera, range(total))
        columns.append(np.stack([reduced(image, _SIDE) for image in images]))
    return np.concatenate(columns, 1)


def _errors_by_lag(
    images: Sequence[np.ndarray], states: Sequence[np.ndarray], lags: int
) -> tuple[dict[int, np.ndarray], dict[int, float]] | None:
    """The state at row t from the image at row t + lag, in episodes that the fit has not seen.

    Returns:
        Lag -> (E,) squared error, in which each state dimension counts relative to its error at
        its best lag; and lag -> explained share of the variance. None if no state moves.
    """
    spread = np.concatenate(states).std(0)
    moving = spread > 1e-6
    if not moving.any():
        return None
    centre = np.concatenate(states).mean(0)
    scaled = [((s - centre) / np.maximum(spread, 1e-6))[:, moving] for s in states]
    mean = np.concatenate(images).mean(0)
    sample = np.concatenate(images)[:: max(1, len(images) * len(images[0]) // 400)] - mean
    axes_FC = _principal_axes(sample)
    reduced = [(i - mean) @ axes_FC for i in images]
    width = max(float(np.concatenate(reduced).var(0).sum()), 1e-9)
    reduced = [r / np.sqrt(width) for r in reduced]
    # Random folds: the tasks of a recording often take turns.
    folds = np.random.default_rng(0).permutation(len(images)) % min(4, len(images))
    squares = {lag: _held_out(reduced, scaled, folds, lag, lags) for lag in range(-lags, lags + 1)}
    pooled = {lag: s.mean(0) for lag, s in squares.items()}
    least = np.maximum(np.min(list(pooled.values()), axis=0), 1e-4)
    weights = np.where(least < 1 - _USEFUL, 1 / least, 1e-6)
    weights /= weights.sum()
    useful = weights > 1e-5
    explained = {
        lag: float(1 - (p[useful].mean() if useful.any() else 1.0)) for lag, p in pooled.items()
    }
    return {lag: s @ weights for lag, s in squares.items()}, explained


def _principal_axes(sample_NF: np.ndarray) -> np.ndarray:
    """(F, C) first principal axes, from the N x N products, which are fewer than F x F."""
    sample = sample_NF.astype(np.float64)
    values, vectors = np.linalg.eigh(sample @ sample.T)
    first = slice(-1, -_COMPONENTS - 1, -1)
    lengths = np.sqrt(np.maximum(values[first], 1e-9))
    return sample.T @ vectors[:, first] / lengths


def _held_out(
    images: Sequence[np.ndarray],
    states: Sequence[np.ndarray],
    folds: np.ndarray,
    lag: int,
    margin: int,
) -> np.ndarray:
    """(E, P) squared error of every episode at one lag, by kernel ridge regression.

    All lags use the same rows.
    """
    rows = [_rows(len(s), margin) for s in states]
    x = [i[r + lag] for i, r in zip(images, rows, strict=True)]
    y = [s[r] for s, r in zip(states, rows, strict=True)]
    out = np.zeros((len(images), y[0].shape[1]))
    for fold in np.unique(folds):
        train = np.flatnonzero(folds != fold)
        a, b = np.concatenate([x[e] for e in train]), np.concatenate([y[e] for e in train])
        weights = np.linalg.solve(_kernel(a, a) + 1e-2 * np.eye(len(a)), b - b.mean(0))
        for e in np.flatnonzero(folds == fold):
            residual = y[e] - b.mean(0) - _kernel(x[e], a) @ weights
            out[e] = (residual**2).mean(0)
    return out


def _rows(total: int, margin: int) -> np.ndarray:
    """Evenly spaced rows that have ``margin`` rows on both sides."""
    inside = np.arange(margin, total - margin)
    return inside[np.unique(np.linspace(0, len(inside) - 1, _ROWS).round().astype(int))]


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.exp(-squares / 2)
