"""File locks: one process per folder, and jobs that several processes share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vla.errors import FolderLocked

# Seconds to wait for a lock. Loader workers inherit the lock and live up to 5 s longer than a
# process that was killed.
WAIT = 10.0
# Seconds between two attempts of a process that finds no free job.
RETRY = 5.0


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Lock ``folder`` for this process while the block runs.

    The operating system releases the lock when the process ends, also after a crash.

    Raises:
        FolderLocked: another process has the lock.
    """
    path = folder / ".lock"
    lock = FileLock(path)
    try:
        lock.acquire(timeout=WAIT)
    except Timeout:
        raise FolderLocked(
            f"{folder}: locked by another process{_owner(path)}; "
            "wait for it or choose another folder"
        ) from None
    try:
        path.write_text(f"{os.getpid()}\n")  # for the message above
        yield
    finally:
        lock.release()


def _owner(path: Path) -> str:
    """The text ``(pid N)`` of the process that has the lock; empty if it is unknown."""
    try:
        pid = path.read_text().strip()
    except OSError:  # Windows does not allow to read a locked file
        return ""
    return f" (pid {pid})" if pid.isdecimal() else ""


def claim_jobs(names: Iterable[str], folder: Path, ready: Callable[[str], bool]) -> Iterator[str]:
    """Yield each name in order, locked by ``folder/NAME.lock`` until the next name is requested.

    Processes with the same names share the jobs. A job that is locked or not ready is tried again
    later, also if the other process has finished it: the caller checks whether work is left.
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
            time.sleep(RETRY)
