"""Packing on a Ray cluster: the same function as everywhere, one task a shard; what is scheduled where is Ray's affair."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

from vla.config import ConfigError

Job = tuple[Any, ...]  # source, first, last, path, skip_bad


def on_ray(write: Callable[..., None], jobs: list[Job], address: str, workers: int) -> Iterator[Job]:
    """Each job once its shard is written.

    address: ``local`` (a cluster of this machine's cores, or of ``workers``), or a cluster's address (``auto``, ``ray://host:10001``). All its machines
    need this package and the folders of source and shards under the same paths.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray
        from ray.exceptions import RayTaskError
    except ImportError as error:
        raise ConfigError("--ray: Ray is not installed; pip install 'vla[ray]'") from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would call home
    where: dict[str, Any] = {"address": address} if address != "local" else {"address": "local", "num_cpus": workers or None}
    try:
        _reach(address)
        ray.init(**where, include_dashboard=False if address == "local" else None, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:  # ConnectionError is an OSError
        raise ConfigError(
            f"--ray {address}: no cluster there ({str(error).splitlines()[0]}); start one with `ray start --head`"
        ) from error
    try:
        task = ray.remote(write).options(max_retries=3)
        source = ray.put(jobs[0][0]) if jobs else None  # sent once to a machine, not once a shard
        running = {task.remote(source, *job[1:]): job for job in jobs}
        while running:
            (ready,), _ = ray.wait(list(running), num_returns=1)
            try:
                ray.get(ready)
            except RayTaskError as error:
                raise error.cause from error
            yield running.pop(ready)
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """OSError within seconds where nobody listens (Ray itself waits for minutes)."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host:
        socket.create_connection((host, int(port)), timeout=5).close()
