"""Short notes on the standard error stream: what the program assumes or changes."""

from __future__ import annotations

import functools
import sys


@functools.cache
def note(text: str) -> None:
    """Print ``note: <text>``, once per process."""
    print(f"note: {text}", file=sys.stderr)
