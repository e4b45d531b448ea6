"""A training run as a SLURM job (submitit); it continues after a preemption or its time limit."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla.errors import ConfigError, TrainingInterrupted
from vla.training.config import Cluster, RunConfig


def check_slurm() -> None:
    """Fail before any work if jobs cannot be submitted from this machine.

    Raises:
        ConfigError: submitit is not installed, or there is no SLURM.
    """
    if importlib.util.find_spec("submitit") is None:
        raise ConfigError("--launcher slurm: submitit is not installed; pip install 'vla[cluster]'")
    if shutil.which("sbatch") is None:
        raise ConfigError(
            "--launcher slurm: the command sbatch is not here; run this on a login node of the "
            "cluster, or use --launcher local"
        )


def make_executor(folder: Path, cluster: str, resources: Cluster, name: str) -> Any:
    """submitit's executor with the resources.

    Args:
        folder: of the jobs' logs.
        cluster: slurm, local (a process of this machine) or debug (this process).
        resources: of a job; its GPUs are those of one machine.
        name: of the job.
    """
    import submitit

    # A run may need its time limit many times.
    executor = submitit.AutoExecutor(folder, cluster=cluster, slurm_max_num_timeout=100)
    options = {"timeout_min": resources.minutes, "cpus_per_task": resources.cpus}
    executor.update_parameters(name=name, **options | resources.options)
    if resources.gpus:
        executor.update_parameters(gpus_per_node=resources.gpus)
    if resources.partition:
        executor.update_parameters(slurm_partition=resources.partition)
    return executor


@dataclass
class TrainJob:
    """Trains. After a signal the step is finished and saved, and the job is queued again."""

    config: RunConfig

    def __call__(self) -> str:
        """The folder of the policy."""
        from vla.training.run import train

        try:
            return str(train(self.config))
        except TrainingInterrupted:
            # submitit's handler of this signal saves the job and queues it again.
            os.kill(os.getpid(), signal.SIGUSR2)
            raise

    def checkpoint(self) -> Any:
        """The job that continues this one; the run itself is in its folder."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def submit(config: RunConfig, cluster: str = "slurm") -> Any:
    """submitit's job of a run, with one task for each process of ``trainer``.

    Raises:
        ConfigError, DataError: what ``train`` refuses before its first step, except what depends on
            the machine of the job: devices and simulators.
    """
    from vla.training.extensions import check_loggers, make_callbacks  # slow
    from vla.training.run import check_inputs
    from vla.training.run_folder import check_folder

    check_folder(Path(config.output_dir), config)
    check_inputs(config)
    check_loggers(config.loggers)
    make_callbacks(config.callbacks)
    resources, trainer = config.slurm, config.trainer
    executor = make_executor(
        Path(config.output_dir) / ".slurm",
        cluster,
        resources,
        f"vla-{Path(config.output_dir).name}",
    )
    executor.update_parameters(nodes=trainer.num_nodes, tasks_per_node=trainer.devices)
    return executor.submit(TrainJob(config))
