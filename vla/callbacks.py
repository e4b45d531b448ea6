"""What a run needs beside the loop: exact resume, and figures a person can watch."""

from __future__ import annotations

import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from vla import provenance
from vla.device import computing_in, wait_for
from vla.schema import Batch
from vla.tables import read_table, write_table


class StreamPosition(lightning.Callback):
    """Counts the batches a run has used; the data module saves the count and continues with the very next batch."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        trainer.datamodule.batches += 1


class RngState(lightning.Callback):
    """Random states of torch, numpy and Python travel with the checkpoint (as tensors and ints: no pickle)."""

    def state_dict(self) -> dict[str, Any]:
        version, words, gauss = random.getstate()
        kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002  libraries still draw from it
        return {
            "torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "python": [version, list(words), gauss],
            "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(cached)],
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        state = getattr(self, "_loaded", None)
        if state is None:
            return
        torch.set_rng_state(state["torch"].cpu())
        # a run may go on where there is no GPU, or another number of them
        if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
        version, words, gauss = state["python"]
        random.setstate((version, tuple(words), gauss))
        kind, keys, position, has_gauss, cached = state["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002


class Provenance(lightning.Callback):
    """Adds a row to ``path`` when a run begins or goes on: ``vla.provenance``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero:
            made = provenance.row(trainer.global_step, pl_module.device, trainer.world_size)
            write_table(self.path, [*read_table(self.path, provenance.COLUMNS), made], provenance.COLUMNS)


class Keep(lightning.Callback):
    """Writes ``path`` every ``every`` steps, after the validation of the same step where there is one; on Ctrl-C and SIGTERM once the step is done.

    A second one does not wait for the step, and what was written last stays. Several processes stop at the same step.
    """

    def __init__(self, path: Path, every: int, val_every: int) -> None:
        self.path, self.every, self.val_every = path, every, val_every
        self.asked, self.before = False, dict[signal.Signals, Any]()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            now = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
            self.before = {number: handler for number, handler in now.items() if handler not in (signal.SIG_IGN, None)}
            for number in self.before:
                signal.signal(number, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        self._restore()
        self.asked = True

    def _restore(self) -> None:
        while self.before:
            signal.signal(*self.before.popitem())

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._restore()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._restore()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if trainer.global_step % self.val_every != 0:
            self._step_done(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._step_done(trainer)

    def _step_done(self, trainer: Any) -> None:
        stop = self.asked
        if trainer.world_size > 1:
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        stop = stop and trainer.global_step < trainer.max_steps
        if stop or trainer.global_step % self.every == 0:
            trainer.save_checkpoint(self.path)
        if stop:
            raise KeyboardInterrupt


def measure_peak_flops(device: torch.device, precision: str, seconds: float = 0.3) -> float:
    """FLOP/s of a matrix product on this device in the run's precision, 1024 wide (on a GPU 8192): the "100 %" of the reported utilisation."""
    width = 8192 if device.type == "cuda" else 1024
    with torch.no_grad(), computing_in(precision, device):
        a = torch.randn(width, width, device=device) @ torch.eye(width, device=device)  # of the type it multiplies in; and warms up
        wait_for(device)
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            a @ a
            wait_for(device)
            count += 1
    return count * 2 * width**3 / (time.perf_counter() - start)


class Monitor(lightning.Callback):
    """Logs means since the last log, image rows a second, realised mixture and model FLOP utilisation; shows a bar with rate and ETA.

    Model FLOPs are counted once by ``torch.utils.flop_counter`` on the first batch and scaled by the rows of later ones; the peak is a
    measured matrix product in the run's precision, so the utilisation is a ratio to the same machine in the same run.
    """

    def __init__(self, every: int, progress: bool) -> None:
        self.every, self.progress = every, progress
        self.validation: dict[str, float] = {}  # the last one's figures

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        from torch.utils.flop_counter import FlopCounterMode

        self.peak = measure_peak_flops(pl_module.device, trainer.precision)
        self.flops_per_row = 0.0
        self.counter = FlopCounterMode(display=False)
        self.rows, self.since, self.seconds = 0, time.perf_counter(), 0.0
        columns = (
            TextColumn("train"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self.bar = Progress(*columns, disable=not self.progress)
        self.bar.start()
        self.job = self.bar.add_task("train", total=trainer.max_steps, completed=trainer.global_step, note="")

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        if not self.flops_per_row:
            self.counter.__enter__()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        step = trainer.global_step
        if self.flops_per_row:
            self.rows += batch.size
        else:  # the counted batch is slow: it is logged, but not timed
            self.counter.__exit__(None, None, None)
            self.flops_per_row = self.counter.get_total_flops() / batch.size
            self.rows, self.since = 0, time.perf_counter()
        if step % self.every == 0:
            figures = pl_module.pop_metrics("train") | self._rates(trainer)
            for logger in trainer.loggers:
                logger.log_metrics(figures, step)
                logger.save()
            note = f"loss {figures.get('train/loss', float('nan')):.3f}  {figures.get('images_per_second', 0):.0f} images/s"
            self.bar.update(self.job, note=note)
            self.rows, self.since = 0, time.perf_counter()
        self.bar.update(self.job, completed=step)

    def _rates(self, trainer: Any) -> dict[str, float]:
        """Rows a second and utilisation since the last log (when rows were timed), the realised mixture, the learning rate."""
        drawn = trainer.datamodule.stream.drawn
        figures = {f"mixture/{name}": count / sum(drawn.values()) for name, count in drawn.items()}
        figures |= {"images": float(sum(drawn.values())), "lr": trainer.optimizers[0].param_groups[0]["lr"]}
        if self.rows:
            rate = self.rows / (time.perf_counter() - self.since)
            figures |= {"images_per_second": rate, "flop_utilisation": rate * self.flops_per_row / self.peak}
        return figures

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        figures = self.validation = pl_module.pop_metrics("val")
        for logger in trainer.loggers:
            logger.log_metrics(figures, trainer.global_step)
            logger.save()
        self.since, self.rows = time.perf_counter(), 0

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.bar.stop()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.bar.stop()


class Best(lightning.Callback):
    """Keeps the weights of the best validation, and stops when ``patience`` validations in a row were no better.

    Args:
        path: of the weights. monitor: whose figures are watched. watch: the figure, lower is better.
    """

    def __init__(self, path: Path, monitor: Monitor, watch: str, patience: int) -> None:
        self.path, self.monitor, self.watch, self.patience = path, monitor, watch, patience
        self.best, self.worse = float("inf"), 0

    @property
    def stopped(self) -> bool:
        """Whether training ended for lack of progress."""
        return self.worse >= self.patience

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "worse": self.worse}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.worse = float(state_dict["best"]), int(state_dict["worse"])

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if self.watch not in self.monitor.validation:
            known = ", ".join(sorted(self.monitor.validation))
            raise ValueError(
                f"train.watch={self.watch!r}: validation has no such figure; it has {known or 'none: is the val split empty?'}"
            )
        value = self.monitor.validation[self.watch]
        if value < self.best:
            self.best, self.worse = value, 0
            trainer.save_checkpoint(self.path, weights_only=True)
            return
        self.worse += 1
        trainer.should_stop = trainer.should_stop or self.stopped
