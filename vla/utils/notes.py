"""Short notes on the standard error stream: what the program assumes or changes."""

from __future__ import annotations

import functools
import sys


@functools.lru_cache(256)  # a server's clients choose some texts
def note(text: str) -> None:
    """Print ``note: <text>``, once per process as long as there are few different notes."""
    print(f"note: {text}", file=sys.stderr)
