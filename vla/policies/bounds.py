"""Actions within the bounds of an action space; numpy only, because exported policies use it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def within_bounds(
    actions_BHA: np.ndarray,
    names: Sequence[str],
    low: Sequence[float],
    high: Sequence[float],
    binary: Sequence[str],
    integer: Sequence[str],
) -> np.ndarray:
    """Actions (B, H, A) within the bounds; binary dimensions at one, and whole numbers rounded."""
    low_A, high_A = np.array(low, np.float32), np.array(high, np.float32)
    binary_A = np.array([name in binary for name in names])
    integer_A = np.array([name in integer for name in names])
    actions_BHA = np.where(integer_A, np.round(actions_BHA), actions_BHA)
    upper = binary_A & (actions_BHA > (low_A + high_A) / 2)
    clipped = np.clip(actions_BHA, low_A, high_A)
    return np.where(upper, high_A, np.where(binary_A, low_A, clipped))
