"""Connection to a Ray cluster."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vla.errors import ConfigError


@contextmanager
def ray_cluster(option: str, address: str, workers: int = 0) -> Iterator[Any]:
    """The module ``ray``, connected to a cluster while the block runs.

    All machines need this package, and the folders under the same paths.

    Args:
        option: of the command line, for messages.
        address: a cluster's address (``auto``, ``host:6379``, ``ray://host:10001``), or ``local``
            for a temporary cluster on this machine.
        workers: processes of a local cluster; 0: one per core.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError(f"{option}: Ray is not installed; pip install 'vla[ray]'") from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no network access
    where: dict[str, Any] = {"address": address}
    if address == "local":
        where |= {"num_cpus": workers or None, "include_dashboard": False}
    try:
        _reach(address)
        ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:  # ConnectionError is an OSError
        raise ConfigError(
            f"{option} {address}: no cluster there ({str(error).splitlines()[0]}); "
            "start one with `ray start --head`"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raise OSError within 5 s if the address does not answer; Ray itself waits for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host:
        socket.create_connection((host, int(port)), timeout=5).close()
