"""Clients whose state is kept between requests."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from vla.serve.errors import Busy

MAX_SESSIONS = 1000  # clients whose state is kept at the same time


class Sessions:
    """The last use of every client; the state of a client that is idle too long is dropped.

    Args:
        drop: drops the state of a client.
        timeout: s without a request.
    """

    def __init__(self, drop: Callable[[Hashable], None], timeout: float) -> None:
        self.drop, self.timeout = drop, timeout
        self._last: OrderedDict[Hashable, float] = OrderedDict()  # the longest idle client is first
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._last)

    def use(self, client: Hashable) -> None:
        """A client sends a request.

        Raises:
            Busy: the client is new, and there are ``MAX_SESSIONS``.
        """
        self.drop_idle()
        with self._lock:
            if client not in self._last and len(self._last) >= MAX_SESSIONS:
                raise Busy(f"the server has {MAX_SESSIONS} clients; try again later")
            self._last[client] = time.monotonic()
            self._last.move_to_end(client)

    def end(self, client: Hashable) -> None:
        """Drop the state of a client."""
        with self._lock:
            self._last.pop(client, None)
        self.drop(client)

    def drop_idle(self) -> None:
        """Drop the state of all clients that are idle too long."""
        oldest = time.monotonic() - self.timeout
        with self._lock:
            idle = []
            for client, last in self._last.items():
                if last > oldest:
                    break
                idle.append(client)
            for client in idle:
                del self._last[client]
        for client in idle:
            self.drop(client)
