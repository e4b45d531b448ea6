"""Counts with nouns, short names and flat settings, for messages and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def count(number: int, noun: str, plural: str = "") -> str:
    """``1 shard``, ``2 shards``; ``plural`` is for nouns whose plural does not end in s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """A time with a fitting unit: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(number: int) -> str:
    """A number of bytes with a decimal unit, as file managers show it: ``12.4 MB``."""
    value = float(number)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} bytes" if unit == "bytes" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def shortened(text: str, width: int) -> str:
    """The text on one line, with ``...`` in its middle if it is longer than ``width``."""
    text = " ".join(text.split())
    if len(text) <= width:
        return text
    head = (width - 3 + 1) // 2
    return f"{text[:head]}...{text[len(text) - (width - 3 - head) :]}"


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted path."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
