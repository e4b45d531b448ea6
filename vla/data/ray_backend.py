"""Packing on a Ray cluster: one task per shard."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

from vla.errors import ConfigError

Job = tuple[Any, ...]  # source, first, last, path, skip_bad


def on_ray(
    write: Callable[..., None], jobs: list[Job], address: str, workers: int
) -> Iterator[Job]:
    """Run jobs on a cluster; yields each job when its shard is written.

    All machines need this package, and the folders of source and shards under the same paths.

    Args:
        address: a cluster's address (``auto``, ``ray://host:10001``), or ``local`` for a
            temporary cluster on this machine.
        workers: processes of a local cluster; 0: one per core.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray
        from ray.exceptions import RayError, RayTaskError
    except ImportError as error:
        raise ConfigError("--ray: Ray is not installed; pip install 'vla[ray]'") from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no network access
    where: dict[str, Any] = (
        {"address": address}
        if address != "local"
        else {"address": "local", "num_cpus": workers or None}
    )
    try:
        _reach(address)
        ray.init(
            **where,
            include_dashboard=False if address == "local" else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (OSError, RuntimeError, ValueError) as error:  # ConnectionError is an OSError
        raise ConfigError(
            f"--ray {address}: no cluster there ({str(error).splitlines()[0]}); "
            "start one with `ray start --head`"
        ) from error
    try:
        task = ray.remote(write).options(max_retries=3)
        source = ray.put(jobs[0][0]) if jobs else None  # sent once per machine
        running = {task.remote(source, *job[1:]): job for job in jobs}
        while running:
            (ready,), _ = ray.wait(list(running), num_returns=1)
            try:
                ray.get(ready)
            except RayTaskError as error:
                raise error.cause from error
            except RayError as error:  # a machine or process was lost three times
                reason = str(error).strip().splitlines()[0]
                raise ConfigError(
                    f"--ray {address}: {reason}; the same command continues"
                ) from error
            yield running.pop(ready)
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raise OSError within 5 s if the address does not answer; Ray itself waits for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host:
        socket.create_connection((host, int(port)), timeout=5).close()
