"""Limits of the server: sizes, numbers and times, and the memory that messages use."""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass

from vla.errors import ConfigError
from vla.serve.errors import Busy

MIB = 2**20
TRIM_AFTER = 8 * MIB  # bytes of finished messages after which free memory is returned
_RANGES = {
    "max_message_mb": (0.001, 1024),
    "max_pending_mb": (0.001, 65536),
    "max_connections": (1, 100_000),
    "receive_timeout": (0.05, 3600),
    "session_timeout": (0.05, 86400),
}


@dataclass(frozen=True)
class Limits:
    """Options of ``vla serve``."""

    max_message_mb: float = 64.0  # MiB of one message or request body
    max_pending_mb: float = 256.0  # MiB of all messages that arrive or wait for their answer
    max_connections: int = 64  # open connections
    # s in which a request has to arrive, and its answer to be read
    receive_timeout: float = 30.0
    # s after which an idle websocket is closed and the state of an idle client is dropped
    session_timeout: float = 600.0

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                option = "--" + name.replace("_", "-")
                raise ConfigError(f"{option} {value}: expected {low:g} to {high:g}")

    @property
    def message_bytes(self) -> int:
        """Bytes of one message."""
        return int(self.max_message_mb * MIB)


class Budget:
    """The bytes of all messages in the server, up to a limit."""

    def __init__(self, limits: Limits) -> None:
        self.limit, self.used = int(limits.max_pending_mb * MIB), 0
        self._released = 0

    def take(self, size: int) -> None:
        """Count the bytes of a part of a message; Busy if there are too many."""
        if self.used + size > self.limit:
            raise Busy("the server has too many pending messages; send again later")
        self.used += size

    def release(self, size: int) -> None:
        """Count bytes of finished messages; free memory is returned to the system soon after."""
        self.used -= size
        self._released += size
        if self._released > TRIM_AFTER:
            self._released = 0
            timer = threading.Timer(0.5, trim_memory)
            timer.daemon = True
            timer.start()


def trim_memory() -> None:
    """Return free memory to the system. Other C libraries than glibc do so by themselves."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return
