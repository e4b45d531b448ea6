"""The training run, as a numbered list."""

from __future__ import annotations

import logging
import sys
import warnings
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import lightning
import torch
from lightning.pytorch.utilities import rank_zero_only

from vla.config import build, load_config
from vla.data.datamodule import Streams, check_splits, sample_chunks
from vla.errors import ConfigError, TrainingInterrupted
from vla.policies.base import BasePolicy
from vla.policies.base_weights import check_base
from vla.policies.checkpoint import save_policy
from vla.policies.initialise import start_from, with_saved_token_ids
from vla.training.benchmark_eval import check_benchmark
from vla.training.checkpoint_io import LAST, latest_checkpoint
from vla.training.config import RunConfig, TrainConfig
from vla.training.divergence import DivergenceGuard
from vla.training.durations import seconds
from vla.training.early_stopping import EarlyStopping
from vla.training.interruption import report_interruption, stoppable
from vla.training.monitor import Monitor
from vla.training.optim import make_optimizer
from vla.training.resume import Checkpointer
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
from vla.training.sharding import gather_weights, shard
from vla.training.specs import (
    check_text_lengths,
    make_robot_specs,
    parts_of_batches,
    run_tokenizer,
)
from vla.training.summary import already_finished, describe, write_summary
from vla.training.trainer import check_extensions, make_trainer, validation_steps
from vla.utils.locking import exclusive_lock
from vla.utils.memory import keep_freed_memory

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
    check_extensions(config)
    base = check_inputs(config)
    check_benchmark(config)
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
        if config.compile:
            compile_parts(policy)
        # 4. The loop. Lightning calls policy.training_step for every batch of the data.
        data = Streams(config.data, options.batch_size, options.seed, options.val_windows)
        log = folder / LOG
        monitor = Monitor(folder.name, options.log_every, progress, log, options.monitor)
        guard = DivergenceGuard(monitor)
        stopping = EarlyStopping(folder / "best.ckpt", monitor, options.monitor, options.patience)
        # Last, so that the checkpoint has the state of all others after the same step.
        limit = config.trainer.max_time
        saver = Checkpointer(
            folder / LAST,
            options.save_every,
            validation_steps(config),
            guard,
            max_seconds=None if limit is None else seconds(limit),
        )
        callbacks = [monitor, guard, *([stopping] if options.patience else []), saver]
        trainer = make_trainer(config, folder, callbacks, checkpoint)
        with report_interruption(trainer, saver):
            trainer.fit(policy, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        gather_weights(policy)
        if options.patience:
            stopping.load_best(policy)
        # 5. The saved policy.
        if trainer.is_global_zero:
            save_policy(policy, config.policy, folder / POLICY, base)
            step = trainer.global_step
            write_summary(folder, config, step, monitor.validation, monitor.best)
    if first:  # the others do not wait until the policy is written
        show(describe(folder, config, read_summary(folder)))
    if saver.stop_requested:  # during the last step: the caller must not start anything else
        raise TrainingInterrupted(f"after the last step; {folder / POLICY} is complete")
    return folder / POLICY


def check_inputs(config: RunConfig) -> str | None:
    """The base of the policy, if only changed weights are saved; the data; the writable folder.

    Raises:
        ConfigError: as ``check_base``.
        DataError: a data set has no training split, a base is missing, or ``output_dir`` cannot be
            written.
    """
    changed = config.train.saved_weights == "changed"
    base = check_base(config.policy, config.init_from) if changed else None
    check_splits(config.data, validation=config.train.patience > 0)
    check_writable(Path(config.output_dir))
    return base


def _hide(text: str) -> None:
    """Print nothing."""


def prepare_machine(options: TrainConfig) -> None:
    """Set seeds and threads, and hide Lightning's messages about its internals."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*Checkpoint directory.*|.*LeafSpec.*")
    # Without FSDP, for which averages are refused, configure_model does nothing.
    warnings.filterwarnings("ignore", message=".*overrides the configure_model callback.*")
    if options.threads:
        torch.set_num_threads(options.threads)
    keep_freed_memory()
    lightning.seed_everything(options.seed, verbose=False)


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
    policy.make_optimizers = partial(
        make_optimizer,
        config=config.optim,
        steps=config.train.steps,
        fused=config.trainer.precision == "32-true",
    )
    # With several robots, or robot and web rows, the processes' batches have different parts.
    policy.shard = partial(shard, layers=len(parts_of_batches(config)) == 1)
    return policy


def compile_parts(policy: BasePolicy) -> None:
    """Compile the large parts of a policy in place; names of weights stay the same.

    Raises:
        ConfigError: the policy has no such parts.
    """
    decoder = getattr(policy, "decoder", None)
    parts = [getattr(policy, name, None) for name in ("vision", "connector")]
    # Causal decoders do not call the whole language model. Its blocks share one program.
    parts += getattr(decoder, "layers", None) or [getattr(decoder, "lm", None)]
    found = [part for part in parts if part is not None]
    if not found:
        raise ConfigError("compile: this policy has no vision encoder, connector or language model")
    for part in found:
        part.compile()
