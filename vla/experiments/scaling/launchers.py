"""Execute a ladder's runs here, on SLURM (submitit) or on Ray."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from vla.config.registry import nearest
from vla.errors import ConfigError
from vla.experiments.scaling.execute import execute
from vla.experiments.scaling.ladder import ScaleConfig, SweepRun
from vla.training.slurm import check_slurm, make_executor
from vla.utils.locking import claim_jobs
from vla.utils.ray_cluster import ray_cluster

LAUNCHERS = ("local", "slurm", "ray", "debug")  # debug: submitit runs in this process


def check_launcher(launcher: str) -> None:
    """Fail before any work if runs cannot be submitted from this machine.

    Raises:
        ConfigError: an unknown launcher, its package is not installed, or there is no cluster.
    """
    if launcher not in LAUNCHERS:
        raise ConfigError(f"--launcher {launcher}: unknown{nearest(launcher, LAUNCHERS[:3])}")
    if launcher == "slurm":
        check_slurm()
    if launcher == "ray" and importlib.util.find_spec("ray") is None:
        raise ConfigError("--launcher ray: ray is not installed; pip install 'vla[ray]'")


def submit(stage_runs: list[SweepRun], config: ScaleConfig, launcher: str) -> Iterator[str]:
    """Execute runs and yield their names as they finish; see ``check_launcher``."""
    if launcher == "local":
        yield from _locally(stage_runs, config)
    elif launcher == "ray":
        yield from _on_ray(stage_runs, config)
    else:
        yield from _on_slurm(stage_runs, config, launcher)


def _locally(todo: list[SweepRun], config: ScaleConfig) -> Iterator[str]:
    """One after the other; several processes with the same command share the runs."""
    sweep_run = {r.name: r for r in todo}

    def ready(name: str) -> bool:
        start = sweep_run[name].start
        return not start or start.is_dir()

    for name in claim_jobs(sweep_run, Path(config.runs), ready):
        yield execute(sweep_run[name], config)


def _on_slurm(stage_runs: list[SweepRun], config: ScaleConfig, launcher: str) -> Iterator[str]:
    import submitit

    executor = make_executor(Path(config.runs) / ".slurm", launcher, config.slurm, "vla-scale")
    with executor.batch():
        jobs = [executor.submit(execute, sweep_run, config) for sweep_run in stage_runs]
    for job in submitit.helpers.as_completed(jobs):
        yield job.result()


def _on_ray(stage_runs: list[SweepRun], config: ScaleConfig) -> Iterator[str]:
    with ray_cluster("--launcher ray: ray_address", config.ray_address) as ray:
        task = ray.remote(execute).options(
            num_cpus=config.slurm.cpus, num_gpus=config.slurm.gpus, max_retries=2
        )
        running = [task.remote(sweep_run, config) for sweep_run in stage_runs]
        while running:
            ready, running = ray.wait(running, num_returns=1)
            try:
                name: str = ray.get(ready[0])
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            yield name
