"""Logged metrics and visible progress of a training run."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import lightning
import torch

from vla.data.config import DataConfig
from vla.models.lora import count_parameters
from vla.types import Batch
from vla.utils.flops import PeakRate, flop_counter
from vla.utils.metrics import gather
from vla.utils.progress import Progress

_COUNTED = 5  # batches with counted FLOPs; one if there are logs as often


class Monitor(lightning.Callback):
    """Logs mean metrics, throughput, realised sampling weights and model FLOP utilisation.

    It shows the progress on stderr, see ``vla.utils.progress``. It always writes a line for each
    log to ``log_file``. Lightning's bars have no total and no ETA here, because they show the
    progress of an epoch and this data is endless.

    Model FLOPs are counted on the first batches, which are not timed, and scaled by the rows of the
    others. The utilisation is that of ``vla.utils.flops.PeakRate``, at most 1; every log measures
    one more product for it.

    The checkpoint has the metrics that are not logged yet and all counters. So a resumed run logs
    the same numbers as a run without interruption.

    Args:
        name: of the policy, for the progress lines.
        every: steps between two logs.
        progress: show the progress.
        log_file: text file for the progress lines.
        metric: validation metric whose best value is kept; lower is better.
    """

    def __init__(
        self, name: str, every: int, progress: bool, log_file: Path, metric: str = "val/loss"
    ) -> None:
        self.name, self.every, self.show, self.log_file = name, every, progress, log_file
        self.metric = metric
        self.validation: dict[str, float] = {}  # metrics of the last validation
        self.best: dict[str, float] = {}  # metrics of the best validation, and its "step"
        self.rows_used: Counter[str] = Counter()  # image rows per data set on this process
        self.flops = self.flops_rows = self.flops_batches = 0  # of the batches with counted FLOPs
        self.progress = Progress("", show=False)  # until training starts
        self.counter = flop_counter()
        self.counting = False  # True while the FLOP counter's hooks are installed
        self.loaded: list[dict[str, Any]] = []  # state of each process in the checkpoint

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint; every process has to call it."""
        own = {"sums": self.policy.metrics.sums(), "rows": dict(self.rows_used)}
        return {
            "processes": gather(own),
            "flops": [self.flops, self.flops_rows, self.flops_batches],
            "validation": self.validation,
            "best": self.best,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.loaded = state_dict["processes"]
        # Checkpoints of earlier versions have other counts.
        self.flops, self.flops_rows, self.flops_batches = state_dict.get("flops", (0, 0, 0))
        self.validation, self.best = state_dict["validation"], state_dict["best"]

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Keep the policy for ``state_dict``."""
        self.policy = pl_module

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Restore the counters, measure the peak and start the progress."""
        same = len(self.loaded) == trainer.world_size
        for rank, state in enumerate(self.loaded):
            # With another number of processes the first one continues the counts of all.
            if trainer.global_rank == (rank if same else 0):
                pl_module.metrics.add_sums(state["sums"], pl_module.device)
                self.rows_used.update(state["rows"])
        dtypes = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
        self.peak = PeakRate(pl_module.device, dtypes.get(trainer.precision, torch.float32))
        self.rows, self.since = 0, time.perf_counter()
        self.show = self.show and trainer.is_global_zero
        done, steps = trainer.global_step, trainer.max_steps
        self._write(trainer, self._header(trainer, pl_module, done, steps))
        self.progress = Progress(f"train {self.name}", steps, "steps", done, self.show)
        self.progress.__enter__()

    def _header(self, trainer: Any, pl_module: Any, done: int, steps: int) -> str:
        parameters, trained = count_parameters(pl_module)
        data = trainer.datamodule
        start = f"from step {done} to {steps}" if done else f"for {steps} steps"
        return (
            f"train {self.name}: {parameters / 1e6:.2f}M parameters ({trained / 1e6:.2f}M trained) "
            f"{start} of {data.batch_size} image rows, on {pl_module.device}; "
            f"data: {_mixture(data.config)}"
        )

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count the FLOPs of the first batches."""
        if self.flops_batches < (_COUNTED if self.every > _COUNTED else 1):
            self.counter.__enter__()
            self.counting = True

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Log every ``every`` steps."""
        self.rows_used.update(row_sources(batch))
        if self.counting:  # counting is slow, so this batch is not timed
            self._stop_counting()
            self.flops += self.counter.get_total_flops()
            self.flops_rows += batch.size
            self.flops_batches += 1
            self.rows, self.since = 0, time.perf_counter()
        else:
            self.rows += batch.size
        self.progress.done = trainer.global_step
        step_done = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if step_done and trainer.global_step % self.every == 0:
            metrics = pl_module.pop_metrics("train") | self._rates(trainer)
            self._log_metrics(trainer, metrics)
            self.progress.note = self._note(metrics)
            self._write(trainer, self.progress.line(), show=False)
            self.rows, self.since = 0, time.perf_counter()
        self.progress.advance(0)

    def _note(self, metrics: dict[str, float]) -> str:
        """Losses and throughput for the progress line."""
        parts = {n.removeprefix("train/"): v for n, v in metrics.items()}
        names = ["loss", *sorted(n for n in parts if n.startswith("loss/"))]
        if len(names) == 2:  # one data set has the loss of all
            names.pop()
        note = ", ".join(f"{n} {parts[n]:.4g}" for n in names if n in parts)
        if "val/loss" in self.validation:
            note += f", val/loss {self.validation['val/loss']:.4g}"
        rate = metrics.get("images_per_second")
        return note + (f", {rate:.3g} images/s" if rate else "")

    def _log_metrics(self, trainer: Any, metrics: dict[str, float]) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(metrics, trainer.global_step)
            logger.save()

    def _write(self, trainer: Any, line: str, show: bool = True) -> None:
        """One line to the log file, and to stderr if progress is shown."""
        if trainer.is_global_zero:
            with self.log_file.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        if show and self.show:
            print(line, file=sys.stderr, flush=True)

    def _rates(self, trainer: Any) -> dict[str, float]:
        """Image rows per second, utilisation, realised sampling weights and learning rate.

        The first two are missing if no batch was timed since the last log.
        """
        used = sum(gather(self.rows_used), Counter())
        total = used.total()
        metrics = {f"mixture/{name}": count / total for name, count in sorted(used.items())}
        metrics["images"] = float(total)
        metrics["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        if self.rows:
            rate = self.rows / (time.perf_counter() - self.since)  # of this process
            metrics["images_per_second"] = rate * trainer.world_size
            self.peak.measure()
            flops_per_row = self.flops / self.flops_rows
            metrics["flop_utilisation"] = self.peak.utilisation(rate * flops_per_row)
        return metrics

    def on_validation_batch_end(self, *arguments: Any, **options: Any) -> None:
        """Show that the process is alive."""
        self.progress.advance(0)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the validation and keep the best one."""
        self.validation = pl_module.pop_metrics("val")
        self._log_metrics(trainer, self.validation)
        value, best = self.validation.get(self.metric), self.best.get(self.metric, float("inf"))
        if value is not None and value < best:
            self.best = self.validation | {"step": trainer.global_step}
        self.since, self.rows = time.perf_counter(), 0

    def _stop_counting(self) -> None:
        """Remove the counter's global module hooks, which outlive the run otherwise."""
        if self.counting:
            self.counter.__exit__(None, None, None)
            self.counting = False

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Remove the progress bar and the hooks of the FLOP counter."""
        self.progress.__exit__(type(exception), exception, None)
        self._stop_counting()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Remove the progress bar."""
        self.progress.__exit__(None, None, None)


def row_sources(batch: Batch) -> list[str]:
    """The data set of every image row."""
    rows = [source for part in batch.robots for source in part.sources]
    return rows if batch.web is None else rows + batch.web.sources


def _mixture(config: DataConfig) -> str:
    """The data sets and their sampling weights; one without a weight is not trained on."""
    weights = config.sampling_weights
    return ", ".join(
        f"{name} (weight {weights[name]:g})" if name in weights else f"{name} (not sampled)"
        for name in config.datasets
    )
