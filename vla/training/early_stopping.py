"""Early stopping with the weights of the best validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch

from vla.errors import DataError
from vla.training.checkpoint_io import is_whole
from vla.training.monitor import Monitor


class EarlyStopping(lightning.Callback):
    """Save the weights of the best validation; stop after ``patience`` validations without one.

    It replaces Lightning's EarlyStopping and ModelCheckpoint. Lightning runs ModelCheckpoint after
    all other callbacks. The resume checkpoint of the same step would then have an old best score,
    and a continued run could keep other weights.

    Args:
        path: file of the weights.
        monitor: the callback that has the validation metrics.
        metric: name of the validation metric; lower is better.
        patience: validations without improvement.
    """

    def __init__(self, path: Path, monitor: Monitor, metric: str, patience: int) -> None:
        self.path, self.monitor, self.metric, self.patience = path, monitor, metric, patience
        self.best, self.worse = float("inf"), 0

    @property
    def stopped(self) -> bool:
        """True if the validations did not improve for ``patience`` times."""
        return self.worse >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"best": self.best, "worse": self.worse}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.best, self.worse = float(state_dict["best"]), int(state_dict["worse"])

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Compare the last validation with the best one."""
        metrics = self.monitor.validation
        if self.metric not in metrics:
            known = ", ".join(sorted(metrics)) or "none; is the val split empty?"
            raise ValueError(
                f"train.monitor={self.metric}: no such validation metric; choices: {known}"
            )
        if metrics[self.metric] < self.best:
            self.best, self.worse = metrics[self.metric], 0
            trainer.save_checkpoint(self.path, weights_only=True)
            return
        self.worse += 1
        trainer.should_stop = trainer.should_stop or self.stopped

    def load_best(self, policy: Any) -> None:
        """Copy the best weights into the policy.

        Raises:
            DataError: the file is missing or damaged, or lacks a weight.
        """
        advice = f"delete {self.path.parent} and train again"
        if not self.path.is_file() or not is_whole(self.path):
            raise DataError(f"{self.path}: missing or damaged; {advice}")
        saved = torch.load(self.path, map_location=policy.device, weights_only=True)["state_dict"]
        missing, _ = policy.load_state_dict(saved, strict=False)
        lost = [n for n in missing if not n.startswith("metrics.")]  # metrics are created on use
        if lost:
            raise DataError(f"{self.path}: lacks {lost[0]}; {advice}")
