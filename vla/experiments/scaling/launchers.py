"""Execute a ladder's runs here, on SLURM (submitit) or on Ray."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

from vla.config.registry import nearest
from vla.errors import ConfigError
from vla.experiments.scaling.execute import execute
from vla.experiments.scaling.ladder import ScaleConfig, SweepRun
from vla.utils.locking import claim_jobs

LAUNCHERS = ("local", "slurm", "ray", "debug")  # debug: submitit runs in this process


def check_launcher(launcher: str) -> None:
    """Fail before any work if runs cannot be submitted from this machine.

    Raises:
        ConfigError: an unknown launcher, its package is not installed, or there is no cluster.
    """
    if launcher not in LAUNCHERS:
        raise ConfigError(f"--launcher {launcher}: unknown{nearest(launcher, LAUNCHERS[:3])}")
    package, extra = {"slurm": ("submitit", "cluster"), "ray": ("ray", "ray")}.get(
        launcher, ("", "")
    )
    if package and importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"--launcher {launcher}: {package} is not installed; pip install 'vla[{extra}]'"
        )
    if launcher == "slurm" and shutil.which("sbatch") is None:
        raise ConfigError(
            "--launcher slurm: the command sbatch is not here; run this on a login node of the "
            "cluster, or use --launcher local"
        )


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
    import ray

    if not ray.is_initialized():
        try:
            ray.init(address="auto", log_to_driver=False)
        except (OSError, RuntimeError) as error:  # ConnectionError is an OSError
            raise ConfigError(
                "--launcher ray: no Ray cluster runs on this machine; start one with "
                "`ray start --head`, or use --launcher local"
            ) from error
    task = ray.remote(execute).options(
        num_cpus=config.slurm.cpus, num_gpus=config.slurm.gpus, max_retries=2
    )
    running = [task.remote(sweep_run, config) for sweep_run in stage_runs]
    while running:
        ready, running = ray.wait(running, num_returns=1)
        yield ray.get(ready[0])
