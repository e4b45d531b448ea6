"""Logged metrics and visible progress of a training run."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from vla.types import Batch
from vla.utils.device import autocast, synchronize


class Monitor(lightning.Callback):
    """Logs mean metrics, throughput, realised sampling weights and model FLOP utilisation.

    It shows a progress bar with ETA; without a terminal, one line per log. It always writes the
    lines to ``log_file``. Lightning's bars have no total and no ETA here, because they show the
    progress of an epoch and this data is endless.

    Model FLOPs are counted on the first batch by ``torch.utils.flop_counter`` and scaled by the
    rows of later batches. The peak is a matrix product in the same precision on the same device.

    Args:
        every: steps between two logs.
        progress: show the progress on the terminal.
        log_file: text file for the progress lines.
    """

    def __init__(self, every: int, progress: bool, log_file: Path) -> None:
        self.every, self.progress, self.log_file = every, progress, log_file
        self.validation: dict[str, float] = {}  # metrics of the last validation
        self.bar = Progress(disable=True)  # until training starts
        self.counting = False  # True while the FLOP counter's hooks are installed

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Measure the peak and start the progress bar."""
        from torch.utils.flop_counter import FlopCounterMode

        self.peak = measure_peak_flops(pl_module.device, trainer.precision)
        self.flops_per_row = 0.0
        self.counter = FlopCounterMode(display=False)
        self.rows, self.since = 0, time.perf_counter()
        self.start_step, self.start_time = trainer.global_step, time.perf_counter()
        self.progress = self.progress and trainer.is_global_zero
        console = Console()
        self.plain = self.progress and not console.is_terminal
        columns = (
            TextColumn("train"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self.bar = Progress(*columns, console=console, disable=not self.progress or self.plain)
        self.bar.start()
        self.job = self.bar.add_task(
            "train", total=trainer.max_steps, completed=trainer.global_step, note=""
        )

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count the FLOPs of the first batch."""
        if not self.flops_per_row:
            self.counter.__enter__()
            self.counting = True

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Log every ``every`` steps."""
        step = trainer.global_step
        if self.flops_per_row:
            self.rows += batch.size
        else:  # counting is slow, so this batch is not timed
            self._stop_counting()
            self.flops_per_row = self.counter.get_total_flops() / batch.size
            self.rows, self.since = 0, time.perf_counter()
        if step % self.every == 0:
            metrics = pl_module.pop_metrics("train") | self._rates(trainer)
            self._log_metrics(trainer, metrics)
            loss, rate = metrics.get("train/loss", float("nan")), metrics.get("images_per_second")
            note = f"loss {loss:.3f}" + (f"  {rate:.0f} images/s" if rate else "")
            self.bar.update(self.job, note=note)
            self._write_line(trainer, note)
            self.rows, self.since = 0, time.perf_counter()
        self.bar.update(self.job, completed=step)

    def _log_metrics(self, trainer: Any, metrics: dict[str, float]) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(metrics, trainer.global_step)
            logger.save()

    def _write_line(self, trainer: Any, note: str) -> None:
        """One plain line with step, loss, throughput and remaining time (validation included)."""
        if not trainer.is_global_zero:
            return
        step, total = trainer.global_step, trainer.max_steps
        seconds = (time.perf_counter() - self.start_time) / (step - self.start_step)
        left = timedelta(seconds=round(seconds * (total - step)))
        line = f"train step {step}/{total}  {note}  {1 / seconds:.2f} steps/s  ETA {left}"
        with self.log_file.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        if self.plain:
            print(line, flush=True)

    def _rates(self, trainer: Any) -> dict[str, float]:
        """Image rows per second, utilisation, realised sampling weights and learning rate.

        The first two are missing if no batch was timed since the last log.
        """
        drawn = trainer.datamodule.stream.drawn
        total = sum(drawn.values())
        metrics = {f"mixture/{name}": count / total for name, count in drawn.items()}
        metrics["images"] = float(total)
        metrics["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        if self.rows:
            rate = self.rows / (time.perf_counter() - self.since)
            metrics["images_per_second"] = rate
            metrics["flop_utilisation"] = rate * self.flops_per_row / self.peak
        return metrics

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the validation."""
        self.validation = pl_module.pop_metrics("val")
        self._log_metrics(trainer, self.validation)
        self.since, self.rows = time.perf_counter(), 0

    def _stop_counting(self) -> None:
        """Remove the counter's global module hooks, which outlive the run otherwise."""
        if self.counting:
            self.counter.__exit__(None, None, None)
            self.counting = False

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Remove the progress bar and the hooks of the FLOP counter."""
        self.bar.stop()
        self._stop_counting()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Remove the progress bar."""
        self.bar.stop()


def measure_peak_flops(device: torch.device, precision: str, seconds: float = 0.3) -> float:
    """FLOP/s of a square matrix product on this device in the run's precision.

    The matrices are 1024 wide on a CPU and 8192 wide on a GPU. It is the 100 % of the utilisation.
    """
    width = 8192 if device.type == "cuda" else 1024
    with torch.no_grad(), autocast(precision, device):
        # The first product warms up, and its result has the dtype of the products.
        a = torch.randn(width, width, device=device) @ torch.eye(width, device=device)
        synchronize(device)
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            a @ a
            synchronize(device)
            count += 1
    return count * 2 * width**3 / (time.perf_counter() - start)
