"""Running means of whatever a step reports, the same on every process."""

from __future__ import annotations

import torch
from torch import distributed, nn
from torchmetrics import MeanMetric


class Means(nn.ModuleDict):
    """Means by logging name (``train/loss/web``), kept until they are taken.

    Processes need not report the same names: one whose batches had no web sample has no web loss. Pairing the collectives of metrics by their order
    would then add up different things, or wait for ever; so the names are agreed on first.
    """

    def track(self, name: str, values: torch.Tensor) -> None:
        """Add ``values`` (any shape, none at all allowed) to the mean of ``name``."""
        key = name.replace("/", "-").replace(".", "_")
        if key not in self:
            self[key] = MeanMetric().to(values.device)
        metric = self[key]
        assert isinstance(metric, MeanMetric)
        metric.update(values.float())

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
            assert isinstance(metric, MeanMetric)
            found[key.replace("-", "/")] = float(metric.compute())
            metric.reset()
        return found
