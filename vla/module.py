"""What every policy shares as a LightningModule: two losses in one step, means of everything by source, the optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import lightning
import numpy as np
import torch
from torch import nn

from vla.actions.normalise import Mode, Normaliser
from vla.contract import Contract, only, pick
from vla.data.relative import reference
from vla.decoders.text import TextLoss
from vla.heads.base import HeadLoss, Prediction
from vla.means import Means
from vla.optim import OptimConfig, make_optimizer
from vla.schema import Batch


@dataclass
class Losses:
    """Of one batch: a HeadLoss for each of ``batch.robots``, in order, and the web's TextLoss if there was any web."""

    robots: list[HeadLoss] = field(default_factory=list)
    web: TextLoss | None = None


@dataclass(frozen=True)
class BoundPolicy:
    """A policy asked for one of its robots: what evaluation, replay and serving drive."""

    policy: PolicyModule
    robot: str

    @property
    def contract(self) -> Contract:
        """What this robot sees and commands."""
        return self.policy.contracts[self.robot]

    @property
    def normaliser(self) -> Normaliser:
        """Of this robot's actions."""
        return self.policy.normaliser(self.robot)

    def holds_plan(self) -> bool:
        """See ``PolicyModule.holds_plan``."""
        return self.policy.holds_plan(self.robot)

    def predict(
        self,
        images_BVTCHW: torch.Tensor,
        instructions: Sequence[str],
        state_BTP: torch.Tensor | None = None,
        before: Sequence[str] = (),
    ) -> tuple[np.ndarray, list[str]]:
        """See ``PolicyModule.predict``."""
        return self.policy.predict(images_BVTCHW, instructions, self.robot, state_BTP, before)

    def act(self, images_BVTCHW: torch.Tensor, instructions: Sequence[str], state_BTP: torch.Tensor | None = None) -> np.ndarray:
        """See ``PolicyModule.act``."""
        return self.policy.act(images_BVTCHW, instructions, self.robot, state_BTP)


def _normaliser(contract: Contract, mode: Mode, dims: dict[str, Mode] | None) -> Normaliser:
    """Of the numbers that are learned: actions, or differences to the state, whose bounds are the smallest and largest of the training data."""
    if not contract.relative:
        return Normaliser(contract.action_space, contract.statistics.get("actions"), mode, dims)
    return Normaliser(contract.learned_space, contract.statistics["relative"], "min_max" if mode == "bounds" else mode, dims)


class PolicyModule(lightning.LightningModule):
    """A policy gives ``losses(batch)`` and ``plan_and_act``; training, metrics and units are here, the same for all.

    Args:
        contracts: robot -> what it sees and commands. optim, steps: of training. normalise, normalise_dims: how robot units become [-1, 1].
        robot_weight, web_weight: weights of the two mean losses in the sum.
    """

    def __init__(
        self, contracts: dict[str, Contract], optim: OptimConfig | None, steps: int, normalise: Mode, robot_weight: float = 1.0,
        web_weight: float = 1.0, normalise_dims: dict[str, Mode] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.contracts = dict(sorted(contracts.items()))  # a robot's place by name: files do not keep another order
        self.optim, self.steps = optim or OptimConfig(), steps
        self.robot_weight, self.web_weight = robot_weight, web_weight
        made = [_normaliser(c, normalise, normalise_dims) for c in self.contracts.values()]
        self.normalisers = nn.ModuleList(made)  # in order of the contracts: names may have dots, module names not
        self.metrics = Means()

    @property
    def contract(self) -> Contract:
        """Of a policy for one robot; ValueError for several."""
        return only(self.contracts)

    def normaliser(self, robot: str | None = None) -> Normaliser:
        """Of a robot's actions; ValueError as in ``pick``."""
        found = self.normalisers[list(self.contracts).index(pick(self.contracts, robot))]
        assert isinstance(found, Normaliser)
        return found

    def robot(self, name: str | None = None) -> BoundPolicy:
        """The policy for one robot; the name may be left out where there is only one.

        Raises:
            ValueError: no such robot, or no name where there are several; the message lists them.
        """
        return BoundPolicy(self, pick(self.contracts, name))

    @property
    def text_processor(self) -> Any:
        """What turns text (and, in whole vision-language models, pictures) into the model's input; saved with the policy."""
        raise NotImplementedError

    def holds_plan(self, robot: str | None = None) -> bool:
        """Whether the plan of the step before counts, so that whoever drives is to tell it (``before`` of ``predict``)."""
        return False

    def losses(self, batch: Batch) -> Losses:
        """Of every robot's rows and of the web rows."""
        raise NotImplementedError

    def plan_and_act(
        self,
        images_BVTCHW: torch.Tensor,
        instructions: list[str],
        robot: str,
        state_BTP: torch.Tensor | None = None,
        before: Sequence[str] = (),
    ) -> Prediction:
        """uint8 images and one instruction a row (and the measured state, and the plans of the step before, for policies that look at them) to actions in [-1, 1] and plans."""
        raise NotImplementedError

    @torch.no_grad()
    def predict(
        self,
        images_BVTCHW: torch.Tensor,
        instructions: Sequence[str],
        robot: str | None = None,
        state_BTP: torch.Tensor | None = None,
        before: Sequence[str] = (),
    ) -> tuple[np.ndarray, list[str]]:
        """uint8 images and one instruction a row to actions (B, H, A) float32 in robot units, inside the action space's bounds
        (binary dims at one of theirs), and the plan written before each (empty texts where the head writes none). robot: may be left out where there is only one.
        state_BTP: measured state in robot units, for policies whose contract has a ``state_dim``; others leave it unread. before: the plan of
        the step before in every row (an empty text where there is none), for policies that hold plans."""
        name = pick(self.contracts, robot)
        state = None if state_BTP is None else state_BTP.to(self.device)
        made = self.plan_and_act(images_BVTCHW.to(self.device), list(instructions), name, state, before)
        actions = self.normaliser(name).inverse(made.unit_BHA.float().to(self.device)).cpu().numpy()
        space, dims = self.contracts[name].action_space, self.contracts[name].relative
        if dims:  # learned as differences to the present state
            if state_BTP is None or state_BTP.shape[-1] != self.contracts[name].state_dim:
                raise ValueError(
                    f"{name}: actions are differences to the robot's state: give (rows, T, {self.contracts[name].state_dim})"
                )
            actions = actions + np.stack([reference(now, dims) for now in state_BTP[:, -1].cpu().numpy()])[:, None]
        low, high = np.array(space.low, np.float32), np.array(space.high, np.float32)
        decisions = np.array([n in space.binary for n in space.names])
        actions = np.where(decisions & (actions > (low + high) / 2), high, np.where(decisions, low, np.clip(actions, low, high)))
        return actions, made.plans or [""] * len(actions)

    def act(
        self,
        images_BVTCHW: torch.Tensor,
        instructions: Sequence[str],
        robot: str | None = None,
        state_BTP: torch.Tensor | None = None,
    ) -> np.ndarray:
        """The actions of ``predict``."""
        return self.predict(images_BVTCHW, instructions, robot, state_BTP)[0]

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Weighted sum of the mean robot loss and the mean web loss."""
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The same on held-out shards, with errors in robot units."""
        self._step(batch, "val")

    def _step(self, batch: Batch, stage: str) -> torch.Tensor:
        losses = self.losses(batch)
        total = torch.zeros((), device=self.device)
        if losses.robots:
            total = total + self.robot_weight * torch.cat([out.loss_M for out in losses.robots]).mean()
        for part, out in zip(batch.robots, losses.robots, strict=True):
            self._by_source(stage, out.loss_M, part.owner_K[out.segment_M], part.sources)
            if out.right_M is not None:
                self.metrics.track(f"{stage}/action_token_accuracy", out.right_M.float())
            if out.unit_KHA is not None:
                error_KHA = self.normaliser(part.robot).inverse(out.unit_KHA) - part.actions_KHA
                own = "" if len(self.contracts) == 1 else f"{part.robot}/"
                for name, error_KH in zip(self.contracts[part.robot].action_space.names, error_KHA.abs().unbind(-1), strict=True):
                    self.metrics.track(f"{stage}/l1/{own}{name}", error_KH, part.mask_KH)
        if batch.web is not None and losses.web is not None:
            total = total + self.web_weight * losses.web.loss_M.mean()
            self._by_source(stage, losses.web.loss_M, batch.web.owner_K[losses.web.text_M], batch.web.sources)
            self.metrics.track(f"{stage}/web_token_accuracy", losses.web.right_M.float())
        self.metrics.track(f"{stage}/loss", total.detach())
        return total

    def _by_source(self, stage: str, loss_M: torch.Tensor, row_M: torch.Tensor, sources: list[str]) -> None:
        for name in sorted(set(sources)):
            rows = torch.tensor([s == name for s in sources], device=loss_M.device)
            self.metrics.track(f"{stage}/loss/{name}", loss_M.detach(), rows[row_M])

    def pop_metrics(self, stage: str) -> dict[str, float]:
        """Means since the last call, by logging name; reset at every logging interval and validation's end."""
        return self.metrics.take(stage, self.device)

    @classmethod
    def load(cls, directory: str | Path, device: str = "auto") -> Self:
        """A saved policy, ready to act, on the GPU where there is one. Needs nothing but the folder; see ``vla.saving``."""
        from vla.saving import load_policy

        return load_policy(directory, device)

    def configure_optimizers(self) -> Any:
        """AdamW and schedule, see ``vla.optim``."""
        return make_optimizer(self, self.optim, self.steps)
