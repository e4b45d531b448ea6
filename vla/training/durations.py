"""Durations as text."""

from __future__ import annotations

import re


def seconds(text: str) -> float:
    """Seconds of ``DD:HH:MM:SS``.

    Raises:
        ValueError: another form.
    """
    if not re.fullmatch(r"\d+:\d{1,2}:\d{1,2}:\d{1,2}", text):
        raise ValueError(f"expected DD:HH:MM:SS, for example 00:11:30:00, got {text!r}")
    days, hours, minutes, rest = map(int, text.split(":"))
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + rest
