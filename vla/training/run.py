"""The training run, as a numbered list."""

from __future__ import annotations

import logging
import sys
import warnings
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from vla.config import build, load_config
from vla.data.datamodule import Streams, check_splits, sample_chunks
from vla.errors import TrainingInterrupted
from vla.policies.base import BasePolicy
from vla.policies.checkpoint import save_policy
from vla.policies.initialise import start_from, with_saved_token_ids
from vla.training.benchmark_eval import BenchmarkEval, check_benchmark
from vla.training.checkpoint_io import LAST, AtomicCheckpointIO, checkpoint_step, latest_checkpoint
from vla.training.config import RunConfig, TrainConfig
from vla.training.divergence import DivergenceGuard
from vla.training.early_stopping import EarlyStopping
from vla.training.interruption import report_interruption, stoppable
from vla.training.monitor import Monitor
from vla.training.optim import make_optimizer
from vla.training.provenance import FILE
from vla.training.resume import Checkpointer, Provenance, RngState, StreamPosition
from vla.training.run_folder import (
    LOG,
    POLICY,
    check_folder,
    check_writable,
    is_finished,
    read_summary,
    remove_stale,
    write_start,
)
from vla.training.specs import check_text_lengths, make_robot_specs, run_tokenizer
from vla.training.summary import already_finished, describe, write_summary
from vla.training.web_answers import WebAnswers
from vla.utils.locking import exclusive_lock

__all__ = ["RunConfig", "TrainConfig", "make_robot_specs", "run_tokenizer", "train"]


def train_from_file(path: str, overrides: list[str], progress: bool = True) -> Path:
    """``vla train``: read and validate the configuration, then ``train``."""
    return train(load_config(path, overrides, RunConfig), progress)


def train(config: RunConfig, progress: bool = True) -> Path:
    """Train a policy and return its folder.

    An interrupted run continues from its checkpoint. A finished run returns at once; with more
    ``train.steps`` it continues.

    Args:
        config: the run.
        progress: show the progress and a report at the end on stderr.

    Raises:
        ConfigError: ``output_dir`` holds a run with another configuration.
        DataError: a data set is unusable, or has changed since the run began; or ``output_dir``
            cannot be written.
        FolderLocked: another process trains in ``output_dir``.
        TrainingDiverged: a loss or gradient is not finite.
        TrainingInterrupted: Ctrl-C or SIGTERM; the current step was finished and saved. After the
            last step the policy is saved too.
    """
    folder, options = Path(config.output_dir), config.train
    first = getattr(rank_zero_only, "rank", 0) == 0  # with DDP, one process has the lock
    show = partial(print, file=sys.stderr, flush=True) if progress and first else _hide
    # 1. The data and the folder: it holds this run or none, and no other process trains in it.
    for note in check_folder(folder, config):
        show(note)
    if is_finished(folder, config):
        show(already_finished(folder, config, read_summary(folder)))
        return folder / POLICY
    check_splits(config.data, validation=options.patience > 0)
    check_benchmark(config)
    check_writable(folder)
    message = f"{folder}: no training step was running; the same command continues"
    with stoppable(message), exclusive_lock(folder) if first else nullcontext():
        if first:
            remove_stale(folder)
        # 2. The random seeds and the machine.
        prepare_machine(options)
        # 3. The policy, built for the robots and words of the data.
        policy = make_policy(config, folder, sample_chunks(config.data))
        check_text_lengths(policy, config.data.datasets)
        checkpoint = latest_checkpoint(folder)
        notes: list[str] = []
        if config.init_from and checkpoint is None:
            notes = start_from(policy, config.init_from)
        if first:
            write_start(folder, config, notes)
        for note in notes:
            show(note)
        # 4. The loop. Lightning calls policy.training_step for every batch of the data.
        data = Streams(config.data, options.batch_size, options.seed, options.val_windows)
        log = folder / LOG
        monitor = Monitor(folder.name, options.log_every, progress, log, options.monitor)
        guard = DivergenceGuard(monitor)
        stopping = EarlyStopping(folder / "best.ckpt", monitor, options.monitor, options.patience)
        # Last, so that the checkpoint has the state of all others after the same step.
        saver = Checkpointer(folder / LAST, options.save_every, validation_steps(config), guard)
        callbacks = [monitor, guard, *([stopping] if options.patience else []), saver]
        trainer = make_trainer(config, folder, callbacks, checkpoint)
        with report_interruption(trainer, saver):
            trainer.fit(policy, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        if options.patience:
            stopping.load_best(policy)
        # 5. The saved policy.
        if trainer.is_global_zero:
            save_policy(policy, config.policy, folder / POLICY)
            step = trainer.global_step
            write_summary(folder, config, step, monitor.validation, monitor.best)
    show(describe(folder, config, read_summary(folder)))
    if saver.stop_requested:  # during the last step: the caller must not start anything else
        raise TrainingInterrupted(f"after the last step; {folder / POLICY} is complete")
    return folder / POLICY


def _hide(text: str) -> None:
    """Print nothing."""


def prepare_machine(options: TrainConfig) -> None:
    """Set seeds and threads, and hide Lightning's messages about its internals."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*Checkpoint directory.*|.*LeafSpec.*")
    if options.threads:
        torch.set_num_threads(options.threads)
    lightning.seed_everything(options.seed, verbose=False)


def validation_steps(config: RunConfig) -> int:
    """Steps between two validations; at least one at the end of a short run."""
    return min(config.train.val_every, config.train.steps)


def make_policy(config: RunConfig, folder: Path, chunks: dict[str, torch.Tensor]) -> BasePolicy:
    """The new policy of a run; a tokenizer that is trained for it is kept in ``folder``.

    ``chunks``: see ``sample_chunks``; components are fitted to them.
    """
    specs, words = make_robot_specs(config)
    init = config.init_from
    policy: BasePolicy = build(
        "policy",
        config.policy if init is None else with_saved_token_ids(config.policy, init),
        specs=specs,
        tokenizer=run_tokenizer(config, words, folder),
        words=words,
        chunks=chunks,
    )
    policy.make_optimizers = partial(make_optimizer, config=config.optim, steps=config.train.steps)
    return policy


def make_trainer(
    config: RunConfig, folder: Path, callbacks: list[Any], checkpoint: Path | None
) -> lightning.Trainer:
    """Lightning's trainer with the callbacks, in the order in which they have to run.

    Args:
        callbacks: further callbacks; the last one writes the checkpoints.
        checkpoint: where the run continues from; None: it starts.
    """
    options = config.train
    # TensorBoard shows the run's name, and hides what was logged after the checkpoint.
    purge: dict[str, Any] = (
        {} if checkpoint is None else {"purge_step": checkpoint_step(checkpoint) + 1}
    )
    loggers: list[Any] = [
        TensorBoardLogger(str(folder), name="tensorboard", version=folder.name, **purge),
        CSVLogger(str(folder), name="", version=f"csv-{len(list(folder.glob('csv-*'))):04d}"),
    ]
    *middle, last = callbacks
    return lightning.Trainer(
        # "unused parameters": a batch may have only robot rows or only web rows
        strategy="ddp_find_unused_parameters_true" if options.devices > 1 else "auto",
        accelerator=options.accelerator,
        devices=options.devices,
        precision=options.precision,
        max_steps=options.steps,
        max_epochs=-1,
        val_check_interval=validation_steps(config),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        gradient_clip_val=config.optim.grad_clip_norm,
        logger=loggers,
        callbacks=[
            StreamPosition(),
            RngState(),
            Provenance(folder / FILE),
            *middle,
            WebAnswers(options.web_questions),
            # A terminal has one progress bar at a time.
            BenchmarkEval(config, last, not sys.stderr.isatty()),
            last,
        ],
        plugins=[AtomicCheckpointIO()],
        log_every_n_steps=options.log_every,
        enable_checkpointing=False,  # see Checkpointer
        enable_progress_bar=False,  # see Monitor
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
