"""How much of the recorded actions the predictions explain, whatever their scale and sign."""

from __future__ import annotations

import numpy as np

from vla.diagnose.lines import SIGNIFICANT, shuffled_weights
from vla.diagnose.windows import Windows


def correlations(
    predicted_NSA: np.ndarray, target_NSA: np.ndarray, windows: Windows, weights_BE: np.ndarray
) -> np.ndarray:
    """(B, A) correlation of predicted and recorded actions under weights of the episodes.

    0 where either is constant.
    """
    return pooled_correlations(moments(predicted_NSA, target_NSA, windows.episode_N), weights_BE)


def moments(x_NSA: np.ndarray, y_NSA: np.ndarray, episode_N: np.ndarray) -> np.ndarray:
    """(6, E, A) sums over the windows of each episode: 1, x, y, xx, yy, xy; NaN are left out."""
    inside = ~np.isnan(x_NSA + y_NSA)
    x, y = np.where(inside, x_NSA, 0.0), np.where(inside, y_NSA, 0.0)
    terms = np.stack([inside.astype(float), x, y, x * x, y * y, x * y]).sum(2)
    out = np.zeros((6, int(episode_N.max()) + 1, x.shape[-1]))
    for term, sums in zip(terms, out, strict=True):
        np.add.at(sums, episode_N, term)
    return out


def pooled_correlations(moments_6EA: np.ndarray, weights_BE: np.ndarray) -> np.ndarray:
    """(B, A) correlations from the sums of ``moments``; 0 where a series is constant."""
    n, x, y, xx, yy, xy = (weights_BE @ m for m in moments_6EA)
    n = np.maximum(n, 1.0)
    variances = (xx / n - (x / n) ** 2) * (yy / n - (y / n) ** 2)
    size = (xx / n) * (yy / n)
    usable = variances > 1e-10 * np.maximum(size, 1e-30)
    covariance = xy / n - x * y / n**2
    return np.where(usable, covariance / np.sqrt(np.where(usable, variances, 1.0)), 0.0)


def unexplained(
    predicted_NSA: np.ndarray, target_NSA: np.ndarray, windows: Windows, weights_BE: np.ndarray
) -> np.ndarray:
    """(B,) share of the recorded variance that the predictions do not explain, mean over dims.

    A wrong sign, scale or offset of a dimension does not change it. So it compares conditions of
    the input even if the actions have another fault.
    """
    moving = windows.moving_A
    r_BA = correlations(predicted_NSA[..., moving], target_NSA[..., moving], windows, weights_BE)
    return 1.0 - (r_BA**2).mean(1)


def explains_more(
    other_B: np.ndarray, recorded_B: np.ndarray, ratio: float = 0.85, tests: int = 1
) -> bool:
    """True if ``other`` leaves clearly less unexplained than ``recorded`` (first: observed)."""
    p = float((other_B[1:] >= recorded_B[1:]).mean())
    return bool(other_B[0] < ratio * recorded_B[0] and p <= SIGNIFICANT / max(1, tests))


def bootstrap(windows: Windows) -> np.ndarray:
    """(B, E) weights for the functions above."""
    return shuffled_weights(len(windows.episodes))
