"""Options of ``lightning.Trainer``."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, Literal

from vla.config import check_ranges
from vla.errors import InvalidValue
from vla.training.durations import seconds

_STEPS = "training is counted in optimiser steps: set train.steps"
_STREAM = "the data stream is endless, and exactly resumable only if all its batches are used"
_VALIDATION = "set train.val_every and train.val_windows"
_FIXED = "the run sets it itself, so that a stopped run continues exactly"


@dataclass(frozen=True)
class TrainerConfig:
    """Options of ``lightning.Trainer``. Those that a run sets itself are refused with a reason."""

    accelerator: str = "auto"  # auto, cpu, gpu ...
    devices: int = 1  # processes of each machine, at least 1: one for each GPU, or any on a CPU
    num_nodes: int = 1  # machines, at least 1
    # How several processes work together: auto (DDP), ddp, fsdp (FSDP2: weights, gradients and
    # optimiser states are divided among the processes), or another name that Lightning knows, for
    # example deepspeed_stage_2. {name: ddp, static_graph: true} gives options of Lightning's class.
    strategy: str | dict[str, Any] = "auto"
    # Numbers of the forward pass; bfloat16 is slow on most CPUs.
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accumulate_grad_batches: int = 1  # batches of train.batch_size rows in one optimiser step
    # Time after which the run stops with a checkpoint, as DD:HH:MM:SS; the same command continues.
    max_time: str | None = None
    gradient_clip_algorithm: Literal["norm", "value"] = "norm"  # of optim.grad_clip_norm
    benchmark: bool | None = None  # cuDNN chooses the fastest convolutions; null: torch's default
    deterministic: bool = False  # only deterministic operations; an error where there are none
    sync_batchnorm: bool = False  # statistics of batch norms over all processes
    detect_anomaly: bool = False  # name the operation that makes a gradient NaN; slow
    profiler: Literal["simple", "advanced", "pytorch"] | None = None  # times of a run; null: none

    refused: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("max_steps", "min_steps", "max_epochs", "min_epochs"), _STEPS),
        **dict.fromkeys(("limit_train_batches", "overfit_batches", "fast_dev_run"), _STREAM),
        **dict.fromkeys(("use_distributed_sampler", "reload_dataloaders_every_n_epochs"), _STREAM),
        **dict.fromkeys(("val_check_interval", "check_val_every_n_epoch"), _VALIDATION),
        **dict.fromkeys(("limit_val_batches", "num_sanity_val_steps"), _VALIDATION),
        **dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "plugins"), _FIXED),
        **dict.fromkeys(("enable_model_summary", "barebones", "default_root_dir"), _FIXED),
        "logger": "set loggers",
        "callbacks": "set callbacks, beside trainer",
        "gradient_clip_val": "set optim.grad_clip_norm",
        "log_every_n_steps": "set train.log_every",
    }

    def __post_init__(self) -> None:
        some = (1, inf)
        check_ranges(self, devices=some, num_nodes=some, accumulate_grad_batches=some)
        if isinstance(self.strategy, dict) and not isinstance(self.strategy.get("name"), str):
            raise InvalidValue("strategy.name", "required: the name of a strategy")
        if self.max_time is not None:
            try:
                seconds(self.max_time)
            except ValueError as error:
                raise InvalidValue("max_time", str(error)) from error

    @property
    def processes(self) -> int:
        """Processes on all machines."""
        return self.devices * self.num_nodes
