"""Heads that a part of the zoo is tested with in the default run, and in the slow one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from policies import ACTION_HEADS

DEFAULT = 3  # heads of each part in the default run; a few parts together have all heads


def heads(part: int) -> Iterator[tuple[Any, int]]:
    """All heads and their numbers, for part number ``part``; the default run has the first."""
    for k in range(len(ACTION_HEADS)):
        yield ACTION_HEADS[(DEFAULT * part + k) % len(ACTION_HEADS)], k


def kept(k: int, *values: Any) -> Any:
    return pytest.param(*values, marks=[pytest.mark.slow] * (k >= DEFAULT))
