"""Threads that decode messages, so that the event loop serves other clients meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from vla.serve.errors import Busy

T = TypeVar("T")
LARGE = 4 * 2**20  # bytes of a message that is decoded in the thread for large messages


class DecodingThreads:
    """Four threads for small messages, and one for large ones, for which no small one waits."""

    def __init__(self) -> None:
        # They end when this object is deleted.
        self._small, self._large = ThreadPoolExecutor(4, "small"), ThreadPoolExecutor(1, "large")
        self._running: set[Future[Any]] = set()
        self._closed = False

    @property
    def is_busy(self) -> bool:
        """True while a thread works."""
        return bool(self._running)

    async def call(self, function: Callable[..., T], *args: Any, size: int = 0) -> T:
        """The result of ``function``, called in a thread; Busy after ``close``."""
        if self._closed:
            raise Busy("the server ends")
        threads = self._large if size > LARGE else self._small
        work = threads.submit(function, *args)
        self._running.add(work)
        work.add_done_callback(self._running.discard)
        return await asyncio.wrap_future(work)

    def close(self) -> None:
        """Start no further calls."""
        self._closed = True
        for threads in (self._small, self._large):
            threads.shutdown(wait=False, cancel_futures=True)
