"""Lightning's trainer of a run: strategy, loggers and callbacks from the configuration."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import StrategyRegistry

from vla.config.registry import nearest
from vla.errors import InvalidValue
from vla.training.benchmark_eval import BenchmarkEval
from vla.training.checkpoint_io import AtomicCheckpointIO, checkpoint_step
from vla.training.config import RunConfig
from vla.training.extensions import check_loggers, made, make_callbacks, make_loggers
from vla.training.provenance import FILE
from vla.training.resume import Provenance, RngState, StreamPosition
from vla.training.sharding import FullySharded
from vla.training.trainer_config import TrainerConfig
from vla.training.web_answers import WebAnswers


def make_trainer(
    config: RunConfig, folder: Path, callbacks: list[Any], checkpoint: Path | None
) -> lightning.Trainer:
    """Lightning's trainer with the callbacks, in the order in which they have to run.

    Args:
        config: the run.
        folder: its folder.
        callbacks: further callbacks; the last one writes the checkpoints.
        checkpoint: where the run continues from; None: it starts.

    Raises:
        ConfigError: an unknown strategy, logger or callback, or one whose package is missing.
    """
    options, trainer = config.train, config.trainer
    done = 0 if checkpoint is None else checkpoint_step(checkpoint)
    *middle, last = callbacks
    return lightning.Trainer(
        **_machine(trainer),
        accumulate_grad_batches=trainer.accumulate_grad_batches,
        benchmark=trainer.benchmark,
        deterministic=trainer.deterministic,
        detect_anomaly=trainer.detect_anomaly,
        profiler=trainer.profiler,
        max_steps=options.steps,
        max_epochs=-1,
        # Lightning counts batches here.
        val_check_interval=validation_steps(config) * trainer.accumulate_grad_batches,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        gradient_clip_val=config.optim.grad_clip_norm,
        gradient_clip_algorithm=trainer.gradient_clip_algorithm,
        logger=make_loggers(config.loggers, folder, done),
        callbacks=[
            StreamPosition(),
            RngState(),
            Provenance(folder / FILE),
            *make_callbacks(config.callbacks),
            *middle,
            WebAnswers(options.web_questions),
            # A terminal has one progress bar at a time.
            BenchmarkEval(config, last, not sys.stderr.isatty()),
            last,
        ],
        log_every_n_steps=options.log_every,
        enable_checkpointing=False,  # see Checkpointer
        enable_progress_bar=False,  # see Monitor
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _machine(config: TrainerConfig) -> dict[str, Any]:
    """Devices, strategy and precision; Lightning refuses what this machine does not have."""
    return {
        "strategy": make_strategy(config),
        "accelerator": config.accelerator,
        "devices": config.devices,
        "num_nodes": config.num_nodes,
        "precision": config.precision,
        "sync_batchnorm": config.sync_batchnorm,
        # The job is queued again by vla.training.slurm.
        "plugins": [
            AtomicCheckpointIO(),
            *([SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []),
        ],
    }


def check_extensions(config: RunConfig) -> None:
    """Check devices, strategy, loggers and callbacks before anything is written.

    Raises:
        ConfigError: as ``make_trainer``.
    """
    strategy = make_strategy(config.trainer)
    # Of the machine; Lightning names it at every start.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    made(lightning.Trainer, _machine(config.trainer) | _QUIET, "trainer")
    check_loggers(config.loggers)
    averages = any(isinstance(c, WeightAveraging) for c in make_callbacks(config.callbacks))
    if isinstance(strategy, FullySharded):
        alone = "one process cannot act with divided weights (fsdp)"
        if averages:
            raise InvalidValue("callbacks", "a moving average needs whole weights: not with fsdp")
        if config.train.eval.episodes:
            raise InvalidValue("train.eval.episodes", f"{alone}; evaluate the saved policy")
        if config.train.web_questions:
            raise InvalidValue("train.web_questions", f"{alone}; use vla eval-vqa")


def make_strategy(config: TrainerConfig) -> Any:
    """Lightning's strategy, or its name.

    Raises:
        InvalidValue: an unknown strategy or option.
    """
    given = config.strategy if isinstance(config.strategy, dict) else {"name": config.strategy}
    name, options = given["name"], {k: v for k, v in given.items() if k != "name"}
    if name == "auto":
        # A batch may have only robot rows or only web rows, which leaves parameters unused.
        several = config.processes > 1
        return "ddp_find_unused_parameters_true" if several else "auto"
    if name == "fsdp":
        # FSDP2. Lightning's strategy "fsdp" is the older FSDP, which does not run on CPUs.
        sizes = {"data_parallel_size": config.processes, "tensor_parallel_size": 1}
        for size in options.keys() & sizes.keys():
            fix = "set trainer.devices and trainer.num_nodes"
            raise InvalidValue(f"trainer.strategy.{size}", f"not an option: {fix}")
        make, options = FullySharded, sizes | options | _WHOLE
    elif _FROM_PYTHON.search(name):
        fix = "its processes keep the run's state for themselves; use ddp"
        raise InvalidValue("trainer.strategy", f"{name} is not possible: {fix}")
    elif name in StrategyRegistry:
        entry = StrategyRegistry[name]
        make, options = entry["strategy"], entry["init_params"] | options
    else:
        known = ["auto", *StrategyRegistry.keys()]
        raise InvalidValue("trainer.strategy", f"no strategy {name!r}{nearest(name, known)}")
    return made(make, options, "trainer.strategy")


_FROM_PYTHON = re.compile("spawn|fork|notebook")  # strategies that start functions, not commands
_QUIET = dict.fromkeys(  # of a trainer that is made as a check
    ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
)
_WHOLE = {"save_distributed_checkpoint": False}  # one file, which any number of processes reads


def validation_steps(config: RunConfig) -> int:
    """Steps between two validations; at least one at the end of a short run."""
    return min(config.train.val_every, config.train.steps)
