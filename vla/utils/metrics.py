"""Running means of metrics, equal on every process."""

from __future__ import annotations

import torch
from torch import distributed, nn
from torchmetrics import Metric


class Mean(Metric):
    """Weighted mean.

    NaN is propagated so that divergence is visible. ``torchmetrics.MeanMetric`` drops NaN. Its
    check for NaN also makes the GPU synchronise several times in each step.
    """

    total: torch.Tensor
    weight: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), "sum")
        self.add_state("weight", torch.zeros(()), "sum")

    def update(self, values: torch.Tensor, weights: torch.Tensor | None = None) -> None:
        """Add float32 values of any shape; weights of the same shape (None: all 1)."""
        self.total += (values if weights is None else values * weights).sum()
        self.weight += values.numel() if weights is None else weights.sum()

    def compute(self) -> torch.Tensor:
        """The mean; NaN if nothing was added."""
        return self.total / self.weight


class MetricMeans(nn.Module):
    """Means by metric name (``train/loss/web``), accumulated until they are read.

    Processes may have different names: without web samples in its batches, a process has no web
    loss. Processes agree on the names first. Otherwise their collective operations could add
    different metrics or deadlock.
    """

    def __init__(self) -> None:
        super().__init__()
        self.means = nn.ModuleDict()

    def update(self, name: str, values: torch.Tensor, weights: torch.Tensor | None = None) -> None:
        """Add values to the mean of ``name``.

        Args:
            name: ``stage/metric``.
            values: any shape, also empty.
            weights: same shape, not negative; None: all 1.
        """
        key = name.replace("/", "-").replace(".", "_")
        if key not in self.means:
            self.means[key] = Mean().to(values.device)
        metric = self.means[key]
        assert isinstance(metric, Mean)
        metric.update(values.float(), None if weights is None else weights.float())

    def compute_and_reset(self, stage: str, device: torch.device) -> dict[str, float]:
        """Means over all processes since the last call, of names that start with ``stage/``.

        Every process has to call it.
        """
        names = [
            key
            for key, metric in self.means.items()
            if key.startswith(f"{stage}-") and metric.update_count
        ]
        if distributed.is_available() and distributed.is_initialized():
            gathered: list[list[str]] = [[] for _ in range(distributed.get_world_size())]
            distributed.all_gather_object(gathered, names)
            names = sorted(set().union(*gathered))
        found = {}
        for key in names:
            if key not in self.means or not self.means[key].update_count:
                self.update(key, torch.zeros(0, device=device))
            metric = self.means[key]
            assert isinstance(metric, Mean)
            found[key.replace("-", "/")] = float(metric.compute())
            metric.reset()
        return found
