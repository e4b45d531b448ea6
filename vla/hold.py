"""One process a folder: what would write beside a run or a packing that is in progress is refused, or shares the work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

WAIT = 10.0  # seconds: a loader's workers outlive a process that was killed by up to five, and hold what it held
LOOK = 5.0  # seconds until a process that has nothing to take looks again


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


def shared(names: Iterable[str], folder: Path, ready: Callable[[str], bool]) -> Iterator[str]:
    """One name after the other, in their order, each for this process alone while it is at it (``folder/NAME.lock``).

    Processes that are given the same names share them: what another holds, or what is not ready yet, is left to it, and comes here once it let go, done or not.
    """
    left = list(names)
    while left:
        folder.mkdir(parents=True, exist_ok=True)
        for name in left:
            if not ready(name):
                continue
            try:
                with FileLock(folder / f"{name}.lock", blocking=False):
                    yield name
            except Timeout:
                continue
            left.remove(name)
            break
        else:
            time.sleep(LOOK)
