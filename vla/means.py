"""Running means of whatever a step reports, the same on every process."""

from __future__ import annotations

import torch
from torch import distributed, nn
from torchmetrics import Metric


class Mean(Metric):
    """Weighted mean. Unlike ``torchmetrics.MeanMetric`` it drops no NaN (a loss that is none must be seen) and does not look for any, which on a GPU
    waits for everything asked of it so far, several times a step."""

    total: torch.Tensor
    weight: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), "sum")
        self.add_state("weight", torch.zeros(()), "sum")

    def update(self, values: torch.Tensor, weights: torch.Tensor | None = None) -> None:
        """Values of any shape, float32, and as many weights (none: all 1)."""
        self.total += (values if weights is None else values * weights).sum()
        self.weight += values.numel() if weights is None else weights.sum()

    def compute(self) -> torch.Tensor:
        """NaN where nothing was added."""
        return self.total / self.weight


class Means(nn.ModuleDict):
    """Means by logging name (``train/loss/web``), kept until they are taken.

    Processes need not report the same names: one whose batches had no web sample has no web loss. Pairing the collectives of metrics by their order
    would then add up different things, or wait for ever; so the names are agreed on first.
    """

    def track(self, name: str, values: torch.Tensor, weights: torch.Tensor | None = None) -> None:
        """Add ``values`` (any shape, none at all allowed) to the mean of ``name``; weights: of the same shape, not negative."""
        key = name.replace("/", "-").replace(".", "_")
        if key not in self:
            self[key] = Mean().to(values.device)
        metric = self[key]
        assert isinstance(metric, Mean)
        metric.update(values.float(), None if weights is None else weights.float())

    def take(self, stage: str, device: torch.device) -> dict[str, float]:
        """Means over all processes since the last call, of the names that begin with ``stage/``; every process has to call it."""
        names = [key for key, metric in self.items() if key.startswith(f"{stage}-") and metric.update_count]
        if distributed.is_available() and distributed.is_initialized():
            everyone: list[list[str]] = [[] for _ in range(distributed.get_world_size())]
            distributed.all_gather_object(everyone, names)
            names = sorted(set().union(*everyone))
        found = {}
        for key in names:
            if key not in self or not self[key].update_count:
                self.track(key, torch.zeros(0, device=device))
            metric = self[key]
            assert isinstance(metric, Mean)
            found[key.replace("-", "/")] = float(metric.compute())
            metric.reset()
        return found
