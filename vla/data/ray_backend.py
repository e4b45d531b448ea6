"""Packing on a Ray cluster: one task per shard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from vla.errors import ConfigError
from vla.utils.ray_cluster import ray_cluster

Job = tuple[Any, ...]  # source, first, last, path, skip_bad


def on_ray(
    write: Callable[..., None], jobs: list[Job], address: str, workers: int
) -> Iterator[Job]:
    """Run jobs on a cluster; yields each job when its shard is written.

    Args:
        write: writes a shard.
        jobs: arguments of ``write``.
        address, workers: see ``ray_cluster``.

    Raises:
        ConfigError: Ray is not installed, there is no cluster at the address, or a machine is lost.
    """
    with ray_cluster("--ray", address, workers) as ray:
        task = ray.remote(write).options(max_retries=3)
        source = ray.put(jobs[0][0]) if jobs else None  # sent once per machine
        running = {task.remote(source, *job[1:]): job for job in jobs}
        while running:
            (ready,), _ = ray.wait(list(running), num_returns=1)
            try:
                ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except ray.exceptions.RayError as error:  # a machine or process was lost three times
                reason = str(error).strip().splitlines()[0]
                raise ConfigError(
                    f"--ray {address}: {reason}; the same command continues"
                ) from error
            yield running.pop(ready)
