"""Locations in images as text, in the bins of the action vocabulary."""

from __future__ import annotations

import math

BINS = 256  # per axis, from left to right and from bottom to top


def location_bin(value: float) -> int:
    """The bin of a coordinate between 0 and 1."""
    return min(BINS - 1, max(0, math.floor(value * BINS)))


def location_text(x: float, y: float) -> str:
    """A point as text, e.g. ``143 97``; x and y are 0 to 1 from the left and the bottom."""
    return f"{location_bin(x)} {location_bin(y)}"
