"""Execute a ladder's runs here, on SLURM (submitit) or on Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vla.errors import ConfigError
from vla.experiments.scaling.execute import execute
from vla.experiments.scaling.ladder import ScaleConfig, SweepRun
from vla.utils.locking import claim_jobs


def submit(stage_runs: list[SweepRun], config: ScaleConfig, launcher: str) -> Iterator[str]:
    """Execute runs and yield their names as they finish.

    Raises:
        ConfigError: an unknown launcher, or its package is not installed.
    """
    if launcher == "local":
        yield from _locally(stage_runs, config)
    elif launcher == "ray":
        yield from _on_ray(stage_runs, config)
    elif launcher in ("slurm", "debug"):  # debug: submitit runs in this process
        yield from _on_slurm(stage_runs, config, launcher)
    else:
        raise ConfigError(f"--launcher {launcher}: choose local, slurm or ray")


def _locally(todo: list[SweepRun], config: ScaleConfig) -> Iterator[str]:
    """One after the other; several processes with the same command share the runs."""
    sweep_run = {r.name: r for r in todo}

    def ready(name: str) -> bool:
        start = sweep_run[name].start
        return not start or start.is_dir()

    for name in claim_jobs(sweep_run, Path(config.runs), ready):
        yield execute(sweep_run[name], config)


def _on_slurm(stage_runs: list[SweepRun], config: ScaleConfig, launcher: str) -> Iterator[str]:
    try:
        import submitit
    except ImportError as error:
        raise ConfigError(
            "--launcher slurm: submitit is not installed; pip install 'vla[cluster]'"
        ) from error
    executor = submitit.AutoExecutor(Path(config.runs) / ".slurm", cluster=launcher)
    wanted = config.slurm
    executor.update_parameters(
        name="vla-scale", timeout_min=wanted.minutes, cpus_per_task=wanted.cpus, **wanted.options
    )
    if wanted.gpus:
        executor.update_parameters(gpus_per_node=wanted.gpus)
    if wanted.partition:
        executor.update_parameters(slurm_partition=wanted.partition)
    with executor.batch():
        jobs = [executor.submit(execute, sweep_run, config) for sweep_run in stage_runs]
    for job in submitit.helpers.as_completed(jobs):
        yield job.result()


def _on_ray(stage_runs: list[SweepRun], config: ScaleConfig) -> Iterator[str]:
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--launcher ray: Ray is not installed; pip install 'vla[ray]'") from error
    if not ray.is_initialized():
        ray.init(address="auto", log_to_driver=False)
    task = ray.remote(execute).options(
        num_cpus=config.slurm.cpus, num_gpus=config.slurm.gpus, max_retries=2
    )
    running = [task.remote(sweep_run, config) for sweep_run in stage_runs]
    while running:
        ready, running = ray.wait(running, num_returns=1)
        yield ray.get(ready[0])
