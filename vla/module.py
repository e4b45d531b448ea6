"""What every policy shares as a LightningModule: two losses in one step, means of everything by source, the optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import lightning
import numpy as np
import torch
from torch import nn
from torchmetrics import MeanMetric

from vla.actions.normalise import Mode, Normaliser
from vla.contract import Contract
from vla.decoders.text import TextLoss
from vla.heads.base import Prediction
from vla.optim import OptimConfig, make_optimizer
from vla.schema import Batch


class PolicyModule(lightning.LightningModule):
    """A policy gives ``losses(batch)`` and ``plan_and_act``; training, metrics and units are here, the same for all.

    Args:
        contract: what it sees and commands. optim, steps: of training. normalise: how robot units become [-1, 1].
        robot_weight, web_weight: weights of the two mean losses in the sum.
    """

    def __init__(
        self,
        contract: Contract,
        optim: OptimConfig | None,
        steps: int,
        normalise: Mode,
        robot_weight: float = 1.0,
        web_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.contract, self.optim, self.steps = contract, optim or OptimConfig(), steps
        self.robot_weight, self.web_weight = robot_weight, web_weight
        self.normaliser = Normaliser(contract.action_space, contract.statistics.get("actions"), normalise)
        self.metrics = nn.ModuleDict()

    @property
    def text_processor(self) -> Any:
        """What turns text (and, in whole vision-language models, pictures) into the model's input; saved with the policy."""
        raise NotImplementedError

    def losses(self, batch: Batch) -> dict[str, Any]:
        """``robot``: HeadLoss, ``web``: TextLoss; either may be absent."""
        raise NotImplementedError

    def plan_and_act(self, images_BVTCHW: torch.Tensor, instructions: list[str]) -> Prediction:
        """uint8 images and one instruction a row to actions in [-1, 1] and plans."""
        raise NotImplementedError

    @torch.no_grad()
    def predict(self, images_BVTCHW: torch.Tensor, instructions: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """uint8 images and one instruction a row to actions (B, H, A) float32 in robot units, inside the action space's bounds, and the plan
        written before each (empty texts where the head writes none)."""
        made = self.plan_and_act(images_BVTCHW.to(self.device), list(instructions))
        actions = self.normaliser.inverse(made.unit_BHA.float().to(self.device)).cpu().numpy()
        space = self.contract.action_space
        clipped = np.clip(actions, np.array(space.low, np.float32), np.array(space.high, np.float32))
        return clipped, made.plans or [""] * len(actions)

    def act(self, images_BVTCHW: torch.Tensor, instructions: Sequence[str]) -> np.ndarray:
        """The actions of ``predict``."""
        return self.predict(images_BVTCHW, instructions)[0]

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Weighted sum of the mean robot loss and the mean web loss."""
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The same on held-out shards, with errors in robot units."""
        self._step(batch, "val")

    def _step(self, batch: Batch, stage: str) -> torch.Tensor:
        losses = self.losses(batch)
        total = torch.zeros((), device=self.device)
        robot_rows = 0 if batch.images_BVTCHW is None else len(batch.images_BVTCHW)
        if "robot" in losses:
            assert batch.owner_K is not None and batch.mask_KH is not None and batch.actions_KHA is not None
            out = losses["robot"]
            total = total + self.robot_weight * out.loss_M.mean()
            self._by_source(stage, out.loss_M, batch.owner_K[out.segment_M], batch.sources[:robot_rows])
            if out.right_M is not None:
                self._track(f"{stage}/action_token_accuracy", out.right_M.float())
            if out.unit_KHA is not None:
                error_A = self.normaliser.inverse(out.unit_KHA) - batch.actions_KHA
                for name, column in zip(self.contract.action_space.names, error_A[batch.mask_KH].abs().T, strict=True):
                    self._track(f"{stage}/l1/{name}", column)
        if "web" in losses:
            web: TextLoss = losses["web"]
            assert batch.web_owner_K is not None
            total = total + self.web_weight * web.loss_M.mean()
            self._by_source(stage, web.loss_M, batch.web_owner_K[web.text_M], batch.sources[robot_rows:])
            self._track(f"{stage}/web_token_accuracy", web.right_M.float())
        self._track(f"{stage}/loss", total.detach())
        return total

    def _by_source(self, stage: str, loss_M: torch.Tensor, row_M: torch.Tensor, sources: list[str]) -> None:
        for name in sorted(set(sources)):
            rows = torch.tensor([s == name for s in sources], device=loss_M.device)
            self._track(f"{stage}/loss/{name}", loss_M.detach()[rows[row_M]])

    def _track(self, name: str, values: torch.Tensor) -> None:
        """Accumulate a mean (torchmetrics); written and reset at every logging interval or validation's end."""
        key = name.replace("/", "-")
        if key not in self.metrics:
            self.metrics[key] = MeanMetric().to(self.device)
        metric = self.metrics[key]
        assert isinstance(metric, MeanMetric)
        metric.update(values.float())

    def pop_metrics(self, stage: str) -> dict[str, float]:
        """Means since the last call, by logging name."""
        found = {}
        for key, metric in self.metrics.items():
            assert isinstance(metric, MeanMetric)
            if key.startswith(f"{stage}-") and metric.update_count:
                found[key.replace("-", "/")] = float(metric.compute())
                metric.reset()
        return found

    @classmethod
    def load(cls, directory: str | Path, device: str = "cpu") -> Self:
        """A saved policy, ready to act. Needs nothing but the folder; see ``vla.saving``."""
        from vla.saving import load_policy

        return load_policy(directory, device)

    def configure_optimizers(self) -> Any:
        """AdamW and schedule, see ``vla.optim``."""
        return make_optimizer(self, self.optim, self.steps)
