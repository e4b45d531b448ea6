"""Running means of metrics, equal on every process."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import distributed, nn
from torchmetrics import Metric

_T = TypeVar("_T")


def gather(value: _T) -> list[_T]:
    """The plain value of every process, in the order of their numbers; all have to call it."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    gathered: list[_T] = [value] * distributed.get_world_size()
    distributed.all_gather_object(gathered, value)
    return gathered


def mean_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over all processes; all have to call it."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    distributed.all_reduce(values)
    return values / distributed.get_world_size()


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
        """Add float32 values of any shape; weights of the same shape (None: all 1).

        Values with weight 0 do not count, also if they are NaN.
        """
        if weights is not None:
            values = torch.where(weights > 0, values * weights, 0.0)
        self.total += values.sum()
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
        key = _key(name)
        if key not in self.means:
            self.means[key] = Mean().to(values.device)
        self._mean(key).update(values.float(), None if weights is None else weights.float())

    def compute_and_reset(self, stage: str, device: torch.device) -> dict[str, float]:
        """Means over all processes since the last call, of names that start with ``stage/``.

        Every process has to call it.
        """
        names = [
            key
            for key, metric in self.means.items()
            if key.startswith(f"{stage}-") and metric.update_count
        ]
        if len(gathered := gather(names)) > 1:
            names = sorted(set().union(*gathered))
        found = {}
        for key in names:
            if key not in self.means or not self.means[key].update_count:
                self.update(key, torch.zeros(0, device=device))
            metric = self._mean(key)
            found[key.replace("-", "/")] = float(metric.compute())
            metric.reset()
        return found

    def is_finite(self, name: str) -> bool:
        """False if a value that is not finite was added to ``name`` on this process."""
        key = _key(name)
        return key not in self.means or bool(torch.isfinite(self._mean(key).total))

    def sums(self) -> dict[str, tuple[float, float]]:
        """The unread (total, weight) of this process by name, for checkpoints."""
        means = {key: self._mean(key) for key in self.means}
        return {k: (float(m.total), float(m.weight)) for k, m in means.items() if m.update_count}

    def add_sums(self, sums: dict[str, tuple[float, float]], device: torch.device) -> None:
        """Add what ``sums`` returned."""
        for key, (total, weight) in sums.items():
            self.update(key, torch.zeros(0, device=device))
            self._mean(key).total += total
            self._mean(key).weight += weight

    def _mean(self, key: str) -> Mean:
        metric = self.means[key]
        assert isinstance(metric, Mean)
        return metric


def _key(name: str) -> str:
    """Module names may not have dots or slashes."""
    return name.replace("/", "-").replace(".", "_")
