"""Losses of a batch: their mean over the rows of all processes, and the metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from vla.models.decoders.text import TextLoss
from vla.models.heads.base import HeadLoss
from vla.types import Batch, RobotBatch
from vla.utils.metrics import MetricMeans, mean_over_processes

_VALIDATION = ("val/all/robot", "val/all/web")  # means of the losses, from which val/loss is made


@dataclass
class Losses:
    """Losses of one batch. robots: in the order of ``batch.robots``. web: None without web data."""

    robots: list[HeadLoss] = field(default_factory=list)
    web: TextLoss | None = None

    def flat(self) -> tuple[torch.Tensor, ...]:
        """(losses of all robots, losses of web answers), each (M,); M may be 0."""
        robots = [out.loss_M for out in self.robots]
        web_M = torch.zeros(0) if self.web is None else self.web.loss_M
        return torch.cat(robots) if robots else web_M[:0], web_M


def training_loss(
    losses: Losses, weights: tuple[float, float], device: torch.device
) -> torch.Tensor:
    """The weighted sum of the mean robot loss and the mean web loss; all processes call it.

    The means are over the rows of all processes. Lightning averages the gradients of the
    processes, so each gets the sum of its own losses, divided by the losses per process.

    Args:
        losses: of the rows of this process.
        weights: of robot and web losses.
        device: of the losses.
    """
    flat = losses.flat()
    counts = torch.tensor([len(part) for part in flat], dtype=torch.float64, device=device)
    divisors = mean_over_processes(counts).clamp(min=1e-9).to(flat[0].dtype)
    parts = zip(weights, flat, divisors, strict=True)
    total: Any = sum(weight * part.sum() / n for weight, part, n in parts if part.requires_grad)
    return total  # type: ignore[no-any-return]


def add_metrics(policy: Any, stage: str, batch: Batch, losses: Losses) -> None:
    """Update the metrics of ``stage`` except the loss; ``policy`` is a ``BasePolicy``."""
    for part, out in zip(batch.robots, losses.robots, strict=True):
        _add_robot_metrics(policy, stage, part, out)
    web, out_web = batch.web, losses.web
    if web is not None and out_web is not None:
        rows_M = web.image_index_K[out_web.text_M]
        _add_by_source(policy.metrics, stage, out_web.loss_M, rows_M, web.sources)
        policy.metrics.update(f"{stage}/web_token_accuracy", out_web.right_M.float())


def _add_robot_metrics(policy: Any, stage: str, part: RobotBatch, out: HeadLoss) -> None:
    """Loss by source, token accuracy, and L1 error of each action dimension in robot units."""
    rows_M = part.image_index_K[out.text_M]
    _add_by_source(policy.metrics, stage, out.loss_M, rows_M, part.sources)
    if out.right_M is not None:
        policy.metrics.update(f"{stage}/action_token_accuracy", out.right_M.float())
    if out.normalized_actions_KHA is None:
        return
    predicted_KHA = policy.normaliser(part.robot).inverse(out.normalized_actions_KHA)
    errors = (predicted_KHA - part.actions_KHA).abs().unbind(-1)
    prefix = "" if len(policy.specs) == 1 else f"{part.robot}/"
    for name, error_KH in zip(policy.specs[part.robot].action_space.names, errors, strict=True):
        policy.metrics.update(f"{stage}/l1/{prefix}{name}", error_KH, part.mask_KH)


def _add_by_source(
    metrics: MetricMeans, stage: str, loss_M: torch.Tensor, row_M: torch.Tensor, sources: list[str]
) -> None:
    for name in sorted(set(sources)):
        rows = torch.tensor([s == name for s in sources], device=loss_M.device)
        metrics.update(f"{stage}/loss/{name}", loss_M.detach(), rows[row_M])


def add_validation_losses(metrics: MetricMeans, losses: Losses) -> None:
    """Add the losses to the means from which ``with_validation_loss`` makes ``val/loss``."""
    for name, loss_M in zip(_VALIDATION, losses.flat(), strict=True):
        if len(loss_M):
            metrics.update(name, loss_M)


def with_validation_loss(found: dict[str, float], weights: tuple[float, float]) -> dict[str, float]:
    """The metrics with ``val/loss`` in place of the means that it is made from."""
    means = [found.pop(name, None) for name in _VALIDATION]
    known = [w * mean for w, mean in zip(weights, means, strict=True) if mean is not None]
    return {"val/loss": sum(known)} | found if known else found
