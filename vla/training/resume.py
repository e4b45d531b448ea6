"""Callbacks for exact resume: data position, random states, provenance and checkpoints."""

from __future__ import annotations

import random
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

from vla.errors import ConfigError
from vla.training import provenance
from vla.training.divergence import DivergenceGuard
from vla.types import Batch
from vla.utils.csv_tables import read_table, write_table


class StreamPosition(lightning.Callback):
    """Counts the used batches in the data module; a resumed run continues with the next batch."""

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count one batch."""
        trainer.datamodule.batches += 1


class RngState(lightning.Callback):
    """Saves the random states of torch, CUDA, numpy and Python as tensors and ints (no pickle)."""

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        version, words, gauss = random.getstate()
        # numpy's global state, because libraries use it
        kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
        return {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "python": [version, list(words), gauss],
            "numpy": [
                str(kind),
                torch.from_numpy(np.asarray(keys).astype(np.int64)),
                int(position),
                int(has_gauss),
                float(cached),
            ],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until training starts."""
        self._loaded = state_dict

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Restore the states."""
        state = getattr(self, "_loaded", None)
        if state is None:
            return
        torch.set_rng_state(state["torch"].cpu())
        # A run may continue without a GPU or with another number of GPUs.
        if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
        version, words, gauss = state["python"]
        random.setstate((version, tuple(words), gauss))
        kind, keys, position, has_gauss, cached = state["numpy"]
        keys = keys.numpy().astype(np.uint32)
        np.random.set_state((kind, keys, position, has_gauss, cached))  # noqa: NPY002


class Provenance(lightning.Callback):
    """Appends a row to ``path`` when a run starts or continues, see ``vla.training.provenance``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Write the row."""
        if trainer.is_global_zero:
            rows: list[Any] = [*read_table(self.path, provenance.COLUMNS)]
            rows.append(provenance.row(trainer.global_step, pl_module.device, trainer.world_size))
            write_table(self.path, rows, provenance.COLUMNS)


class Checkpointer(lightning.Callback):
    """Writes the resume checkpoint, also at the end of the run and after Ctrl-C or SIGTERM.

    After a signal the current step is finished first. A second signal stops at once; the last
    checkpoint stays. All processes stop at the same step.

    It replaces Lightning's ModelCheckpoint, which writes before the validation of the same step.
    A run that continues from such a checkpoint would skip this validation.

    Args:
        path: file of the checkpoint.
        every: steps between two checkpoints.
        val_every: steps between two validations.
        guard: the callback that keeps weights that are not finite out of checkpoints.
        max_seconds: time after which the run stops as after a signal; None: no limit.
    """

    def __init__(
        self,
        path: Path,
        every: int,
        val_every: int,
        guard: DivergenceGuard,
        max_seconds: float | None = None,
    ) -> None:
        self.path, self.every, self.val_every, self.guard = path, every, val_every, guard
        self.deadline = None if max_seconds is None else time.monotonic() + max_seconds
        self.saved = 0  # step of the last checkpoint
        self.stop_requested = False
        self.failure: Exception | None = None  # of an evaluation; raised after the checkpoint
        self.handlers = dict[signal.Signals, Any]()  # handlers before training, by signal

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Check the free space, and handle the signals; only the main thread may."""
        self.saved = trainer.global_step
        check_free_space(self.path.parent, pl_module)
        if threading.current_thread() is not threading.main_thread():
            return
        present = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        ignored = (signal.SIG_IGN, None)
        self.handlers = {number: h for number, h in present.items() if h not in ignored}
        cluster = signal.getsignal(signal.SIGUSR2)
        if callable(cluster):  # of submitit, which gets it before a preemption
            self.handlers[signal.SIGUSR2] = cluster
        for number, handler in [*self.handlers.items()]:
            signal.signal(number, self._request_stop)
            if self.stop_requested:  # a signal came between these lines
                signal.signal(number, handler)

    def _request_stop(self, number: int, frame: Any) -> None:
        self._restore_handlers()
        self.stop_requested = True

    def _restore_handlers(self) -> None:
        while self.handlers:
            signal.signal(*self.handlers.popitem())

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Restore the handlers."""
        self._restore_handlers()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Restore the handlers."""
        self._restore_handlers()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """A step without validation is done."""
        if step_is_done(trainer, batch_idx) and trainer.global_step % self.val_every != 0:
            self._step_done(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """A step with validation is done."""
        self._step_done(trainer)

    def _step_done(self, trainer: Any) -> None:
        late = self.deadline is not None and time.monotonic() > self.deadline
        stop = self.stop_requested or late or self.failure is not None
        if trainer.world_size > 1:
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        finished = trainer.should_stop or trainer.global_step >= trainer.max_steps
        stop = stop and not finished
        if stop or finished or trainer.global_step % self.every == 0:
            self.guard.check_gradient(trainer)
            trainer.save_checkpoint(self.path)
            self.saved = trainer.global_step
        if self.failure is not None:
            raise self.failure
        if stop:
            raise KeyboardInterrupt


def step_is_done(trainer: Any, batch_idx: int) -> bool:
    """True after the last of the batches of one optimiser step."""
    return bool((batch_idx + 1) % trainer.accumulate_grad_batches == 0)


def check_free_space(folder: Path, policy: Any) -> None:
    """Check that the disk has room for the checkpoints and the policy of a run.

    While a checkpoint is written, there are two older ones. AdamW has two numbers for each trained
    parameter.

    Raises:
        ConfigError: the free space is too small.
    """
    weights = sum(p.numel() * p.element_size() for p in policy.parameters())
    trained = [p for p in policy.parameters() if p.requires_grad]
    moments = 2 * sum(p.numel() * p.element_size() for p in trained)
    present = sum(p.stat().st_size for p in folder.glob("*.ckpt"))
    needed = 3 * (weights + moments) + weights - present
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigError(
            f"output_dir {folder}: the disk has {free / 1e9:.3g} GB free, and checkpoints and "
            f"policy need {needed / 1e9:.3g} GB; free space or choose another output_dir"
        )
