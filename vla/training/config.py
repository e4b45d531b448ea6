"""Configuration of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from vla.config import Slot, check
from vla.data.config import DataConfig
from vla.errors import ConfigError
from vla.policies.checkpoint import plain
from vla.training.optim import OptimConfig


@dataclass(frozen=True)
class TrainConfig:
    """Length, logging and hardware of a training run."""

    steps: int = 1000  # optimiser steps
    batch_size: int = 16  # image rows of one step on one device
    seed: int = 0  # seed of initial weights, data order and augmentation
    log_every: int = 50  # steps between two logs of the training metrics
    val_every: int = 500  # steps between two validations
    save_every: int = 250  # steps between two checkpoints
    val_windows: int = 200  # samples of each data set in one validation
    # Benchmark episodes of each task after each validation, with a video in TensorBoard; 0: none.
    rollout_episodes: int = 0
    # Validations without improvement after which training stops; 0: no early stopping. If it is
    # not 0, the policy is saved with the weights of the best validation.
    patience: int = 0
    monitor: str = "val/loss"  # validation metric of early stopping; lower is better
    # Lightning's precision; bfloat16 is slow on most CPUs.
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: str = "auto"  # Lightning's accelerator: auto, cpu, gpu ...
    devices: int = 1  # number of GPUs or processes, trained with DDP
    threads: int = 0  # CPU threads of torch; 0: torch's default


@dataclass(frozen=True)
class RunConfig:
    """One training run: the policy, the data and the training."""

    # The policy, its components and their options.
    policy: Annotated[dict[str, Any], Slot("policy")]
    # Data sets and how they are sampled.
    data: DataConfig
    # Folder of checkpoints, logs and the saved policy.
    output_dir: str
    # Folder of a saved policy whose vision encoder, connector and decoder initialise this one.
    init_from: str | None = None
    # Length, logging and hardware.
    train: TrainConfig = field(default_factory=TrainConfig)
    # Optimiser and schedule.
    optim: OptimConfig = field(default_factory=OptimConfig)


def resolved(config: RunConfig) -> dict[str, Any]:
    """The whole configuration as plain data, for ``config.yaml``."""
    return plain(vars(config))


def check_same_run(saved: Path, config: RunConfig) -> None:
    """Check that the folder of ``saved`` (``config.yaml``) holds no other run.

    The number of threads may differ. An option that is missing in the file has its default value.

    Raises:
        ConfigError: the file has another configuration.
    """
    if not saved.is_file():
        return
    try:
        before = check(yaml.safe_load(saved.read_text(encoding="utf-8")), RunConfig, "")
    except ConfigError:  # an option of an older version
        before = None
    if before is None or _without_threads(before) != _without_threads(config):
        raise ConfigError(
            f"{saved}: this folder holds a run with another configuration; "
            "choose another output_dir or delete the folder"
        )


def _without_threads(config: RunConfig) -> dict[str, Any]:
    settings = resolved(config)
    settings["train"].pop("threads")
    return settings
