"""One process a folder: what would write beside a run or a packing that is in progress is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

WAIT = 10.0  # seconds: a loader's workers outlive a process that was killed by up to five, and hold what it held


class Busy(ValueError):
    """Another process writes into this folder; the message names it and the fix."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """``folder`` for this process alone while the block runs; a process that dies lets go of it, however it died.

    Raises:
        Busy: another process holds it.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=WAIT)
    except Timeout:
        raise Busy(
            f"{folder}: another process is at work here; wait for it or stop it (it keeps what it has), or choose another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()
