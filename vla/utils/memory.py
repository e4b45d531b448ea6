"""Memory of this process."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path


def peak_memory_mb() -> float:
    """Peak resident memory of this process in MiB.

    On Linux it is VmHWM, because the peak of ``getrusage`` includes the parent process.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)


def keep_freed_memory() -> None:
    """Keep the freed memory of large tensors in this process; glibc returns it to the system.

    Every step of a training allocates tensors of the same sizes, and the system clears every page
    of new memory. It does nothing without glibc.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option is not None:
        for option in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            set_option(option, _LARGE)


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_... of glibc's malloc.h
_LARGE = 2**30  # bytes
