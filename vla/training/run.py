"""The training run, as a numbered list."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from vla.config import build, load_config
from vla.data.datamodule import Streams, sample_chunks
from vla.errors import TrainingInterrupted
from vla.policies.base import BasePolicy
from vla.policies.checkpoint import save_policy, start_from
from vla.training.config import RunConfig, TrainConfig, check_same_run, resolved
from vla.training.early_stopping import EarlyStopping
from vla.training.monitor import Monitor
from vla.training.optim import make_optimizer
from vla.training.provenance import FILE
from vla.training.resume import Checkpointer, Provenance, RngState, StreamPosition
from vla.training.rollout_video import RolloutVideo
from vla.training.specs import make_robot_specs, run_tokenizer
from vla.utils.locking import exclusive_lock

__all__ = ["RunConfig", "TrainConfig", "make_robot_specs", "run_tokenizer", "train"]


def train_from_file(path: str, overrides: list[str], progress: bool = True) -> Path:
    """``vla train``: read and validate the configuration, then ``train``."""
    return train(load_config(path, overrides, RunConfig), progress)


def train(config: RunConfig, progress: bool = True) -> Path:
    """Train a policy and return its folder.

    An interrupted run continues from its checkpoint. A finished run returns at once.

    Args:
        config: the run.
        progress: show a progress bar, or plain lines if the output is not a terminal.

    Raises:
        ConfigError: ``output_dir`` holds a run with another configuration.
        FolderLocked: another process trains in ``output_dir``.
        TrainingInterrupted: Ctrl-C or SIGTERM; the current step was finished and saved.
    """
    # 1. The folder: it holds this run or none, and no other process trains in it.
    folder = Path(config.output_dir)
    saved_config, saved_policy = folder / "config.yaml", folder / "policy"
    checkpoint = folder / "last.ckpt"
    check_same_run(saved_config, config)
    if saved_policy.is_dir():
        return saved_policy
    folder.mkdir(parents=True, exist_ok=True)
    first_process = getattr(rank_zero_only, "rank", 0) == 0  # with DDP, one process has the lock
    with exclusive_lock(folder) if first_process else nullcontext():
        if not saved_config.is_file():  # an earlier start failed before training began
            shutil.rmtree(folder / "tokenizer", ignore_errors=True)
        # 2. The random seeds and the machine.
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        # Warnings about Lightning's internals.
        warnings.filterwarnings("ignore", message=".*Checkpoint directory.*|.*LeafSpec.*")
        if config.train.threads:
            torch.set_num_threads(config.train.threads)
        lightning.seed_everything(config.train.seed, verbose=False)
        # 3. The policy, built for the robots and words of the data.
        policy = make_policy(config, folder)
        if config.init_from and not checkpoint.is_file():
            start_from(policy, config.init_from)
        text = yaml.safe_dump(resolved(config), sort_keys=False)
        saved_config.write_text(text, encoding="utf-8")
        # 4. The loop. Lightning calls policy.training_step for every batch of the data.
        options = config.train
        data = Streams(config.data, options.batch_size, options.seed, options.val_windows)
        monitor = Monitor(options.log_every, progress, folder / "train.log")
        stopping = EarlyStopping(folder / "best.ckpt", monitor, options.monitor, options.patience)
        trainer = make_trainer(config, folder, checkpoint, monitor, stopping)
        resume = str(checkpoint) if checkpoint.is_file() else None
        with report_interruption(trainer):
            trainer.fit(policy, datamodule=data, ckpt_path=resume, weights_only=True)
        if options.patience and (stopping.stopped or trainer.global_step == options.steps):
            stopping.load_best(policy)
        # 5. The saved policy.
        if trainer.is_global_zero:
            save_policy(policy, config.policy, saved_policy)
    return saved_policy


def make_policy(config: RunConfig, folder: Path) -> BasePolicy:
    """The new policy of a run; a tokenizer that is trained for it is kept in ``folder``."""
    specs, words = make_robot_specs(config)
    policy: BasePolicy = build(
        "policy",
        config.policy,
        specs=specs,
        tokenizer=run_tokenizer(config, words, folder),
        words=words,
        chunks=sample_chunks(config.data),
    )
    policy.make_optimizers = partial(make_optimizer, config=config.optim, steps=config.train.steps)
    return policy


def make_trainer(
    config: RunConfig,
    folder: Path,
    checkpoint: Path,
    monitor: Monitor,
    stopping: EarlyStopping,
) -> lightning.Trainer:
    """Lightning's trainer with the callbacks, in the order in which they have to run."""
    options = config.train
    val_every = min(options.val_every, options.steps)
    loggers: list[Any] = [
        TensorBoardLogger(str(folder), name="", version="tensorboard"),
        CSVLogger(str(folder), name="", version=f"csv-{len(list(folder.glob('csv-*'))):04d}"),
    ]
    callbacks = [
        StreamPosition(),
        RngState(),
        Provenance(folder / FILE),
        monitor,
        *([stopping] if options.patience else []),  # reads the metrics of the monitor
        RolloutVideo(options.rollout_episodes),
        # Last, so that the checkpoint has the state of all others after the same step.
        Checkpointer(checkpoint, options.save_every, val_every),
    ]
    return lightning.Trainer(
        # "unused parameters": a batch may have only robot rows or only web rows
        strategy="ddp_find_unused_parameters_true" if options.devices > 1 else "auto",
        accelerator=options.accelerator,
        devices=options.devices,
        precision=options.precision,
        max_steps=options.steps,
        max_epochs=-1,
        val_check_interval=val_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        gradient_clip_val=config.optim.grad_clip_norm,
        logger=loggers,
        callbacks=callbacks,
        log_every_n_steps=options.log_every,
        enable_checkpointing=False,  # see Checkpointer
        enable_progress_bar=False,  # see Monitor
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


@contextmanager
def report_interruption(trainer: lightning.Trainer) -> Iterator[None]:
    """Turn the exit after Ctrl-C and SIGTERM into TrainingInterrupted; stop loader processes."""
    try:
        yield
    except SystemExit:  # Lightning raises it after Ctrl-C and SIGTERM
        raise TrainingInterrupted(
            f"stopped at step {trainer.global_step} of {trainer.max_steps}; "
            "the same command continues"
        ) from None
    finally:
        # Lightning skips this if the run ends in a validation; the loader processes would stay.
        trainer.fit_loop.teardown()
