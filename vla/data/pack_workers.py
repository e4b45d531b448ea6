"""Shards written in this process, or in several that end with it."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

from vla.data.shard_writer import write_shard
from vla.errors import DataError

_INTERVAL = 1.0  # seconds between two reports of progress
_written: Any = None  # in a worker: the shared number of written samples


def write_shards(
    jobs: Sequence[tuple[Any, ...]], workers: int, written: Callable[[int], None]
) -> None:
    """Call ``write_shard`` with the arguments of every job.

    Args:
        workers: processes; 0: this one. They end if this process is killed.
        written: called with the number of samples that were written since its last call.

    Raises:
        DataError: a worker was killed.
    """
    if workers < 1:
        for job in jobs:
            partial(write_shard, written=lambda: written(1))(*job)
        return
    context = multiprocessing.get_context("spawn")
    count, seen = context.Value("q", 0), 0
    with ProcessPoolExecutor(workers, context, _begin, (count,)) as pool:
        left = {pool.submit(_work, *job) for job in jobs}
        try:
            while left:
                done, left = wait(left, _INTERVAL, FIRST_COMPLETED)
                now = count.value
                written(now - seen)
                seen = now
                for future in done:
                    future.result()
        except BrokenProcessPool as error:
            raise DataError(
                "a packing process was killed, probably by lack of memory; give fewer --workers; "
                "the same command continues"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin(count: Any) -> None:
    """Prepare a worker: it ends with its parent, also if that one is killed."""
    global _written
    _written = count
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(*job: Any) -> None:
    partial(write_shard, written=_count)(*job)


def _count() -> None:
    with _written.get_lock():
        _written.value += 1
