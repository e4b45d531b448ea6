"""Stops a run whose loss or gradient is not finite, before a checkpoint or policy has it."""

from __future__ import annotations

from typing import Any

import lightning
import torch

from vla.errors import TrainingDiverged
from vla.training.monitor import Monitor, row_sources
from vla.types import Batch
from vla.utils.metrics import gather


class DivergenceGuard(lightning.Callback):
    """Raises TrainingDiverged at the first loss or gradient that is NaN or infinite.

    The loss is checked before its gradient is computed. Waiting for a gradient would stop a GPU
    from running ahead. So the norm of a step's gradient is read in the next step, and before each
    checkpoint. With ``16-mixed`` Lightning's gradient scaler skips steps with infinite gradients.

    Args:
        monitor: the callback that has the validation metrics.
    """

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self.place, self.sources = "", list[str]()  # of the current batch
        self.unread: tuple[str, list[str], torch.Tensor] | None = None  # gradient norm of a step

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Remember the number of the batch in the run, and its data sets."""
        self.place = f"step {trainer.global_step + 1}, batch {trainer.datamodule.batches + 1}"
        self.sources = sorted(set(row_sources(batch)))

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: torch.Tensor) -> None:
        """Check the loss of this step and the gradient of the step before."""
        self.check_gradient(trainer)
        value = float(loss.detach())
        finite = bool(torch.isfinite(loss.detach()))
        if trainer.strategy.reduce_boolean_decision(finite):
            return
        metrics = pl_module.metrics
        bad = [s for s in self.sources if not metrics.is_finite(f"train/loss/{s}")]
        names = set().union(*gather(set() if finite else set(bad or self.sources)))
        raise _diverged(trainer, self.place, "loss", names, f"is {value}" if not finite else "")

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Compute the norm of the gradient; with several processes all have the same."""
        if not trainer.precision.startswith("16"):
            groups = optimizer.param_groups
            gradients = [p.grad for g in groups for p in g["params"] if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients, foreach=None)
            self.unread = (self.place, self.sources, norm)
            pl_module.gradient_norm = norm

    def check_gradient(self, trainer: Any) -> None:
        """Check the last gradient.

        Raises:
            TrainingDiverged: it is not finite.
        """
        unread, self.unread = self.unread, None
        if unread is not None and not torch.isfinite(unread[2]):
            place, sources, norm = unread
            raise _diverged(trainer, place, "gradient", set(sources), f"has the norm {float(norm)}")

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Check the last gradient before its weights are validated."""
        self.check_gradient(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Check the validation loss; the monitor has read it."""
        metrics = self.monitor.validation
        values = {n: v for n, v in metrics.items() if not torch.isfinite(torch.tensor(v))}
        if "val/loss" in values:
            prefix = "val/loss/"
            names = {n.removeprefix(prefix) for n in values if n.startswith(prefix)}
            place, value = f"step {trainer.global_step}", f"is {values['val/loss']}"
            raise _diverged(trainer, place, "validation loss", names, value)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Check the last gradient of the run."""
        self.check_gradient(trainer)


def _diverged(trainer: Any, place: str, what: str, names: set[str], value: str) -> TrainingDiverged:
    sets = trainer.datamodule.config.datasets
    where = ", ".join(sorted(names)) or "all data sets"
    folder = next((sets[n] for n in sorted(names) if n in sets), "DATA")
    lr = trainer.optimizers[0].param_groups[0]["lr"]
    return TrainingDiverged(
        f"{place}: the {what} of {where} {value or 'is not finite'}; no policy is saved; "
        f"check the data with `vla doctor {folder}`, or lower optim.lr (at this step {lr:.2g})"
    )
