"""BasePolicy: the training step, metrics and units that every policy shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import lightning
import numpy as np
import torch
from torch import nn

from vla.models.actions.normalise import Mode, Normaliser
from vla.models.decoders.drafts import Draft
from vla.models.heads.base import Prediction
from vla.policies.bound import BoundPolicy
from vla.policies.losses import (
    Losses,
    add_metrics,
    add_validation_losses,
    training_loss,
    with_validation_loss,
)
from vla.policies.observations import observation_batch
from vla.policies.spec import RobotSpec, only, pick
from vla.policies.units import finite, make_normaliser, to_legal_actions
from vla.types import Batch, Leftover
from vla.utils.metrics import MetricMeans
from vla.utils.modes import evaluation_mode

OptimizerFactory = Callable[[nn.Module], Any]


class BasePolicy(lightning.LightningModule, ABC):
    """Training step, metrics and action units; a policy implements ``losses`` and ``predict``.

    Args:
        specs: robot -> inputs, outputs and units.
        normalise, normalise_dims: see ``Normaliser``.
        robot_weight, web_weight: weights of the mean robot loss and the mean web loss in the sum.
    """

    def __init__(
        self,
        specs: dict[str, RobotSpec],
        normalise: Mode,
        robot_weight: float = 1.0,
        web_weight: float = 1.0,
        normalise_dims: dict[str, Mode] | None = None,
    ) -> None:
        super().__init__()
        # Sorted, because JSON files of specs are sorted: a robot keeps its number after loading.
        self.specs = dict(sorted(specs.items()))
        # Set by the training run, because policies do not import the optimiser configuration.
        self.make_optimizers: OptimizerFactory | None = None
        # Set by the training run: divides the parameters among the processes of a device mesh.
        self.shard: Callable[[nn.Module, Any], None] | None = None
        self.loss_weights = robot_weight, web_weight
        # A list in the order of the specs: module names may not have dots, robot names may.
        self.normalisers = nn.ModuleList(
            [make_normaliser(spec, normalise, normalise_dims) for spec in self.specs.values()]
        )
        self.metrics = MetricMeans()
        # Set by the training run before the gradients are clipped; None: not computed.
        self.gradient_norm: torch.Tensor | None = None
        self._is_sharded = False

    @property
    def spec(self) -> RobotSpec:
        """The spec of a policy for one robot; ValueError if it has several."""
        return only(self.specs)

    def normaliser(self, robot: str | None = None) -> Normaliser:
        """The action normaliser of a robot; ValueError as in ``pick``."""
        found = self.normalisers[list(self.specs).index(pick(self.specs, robot))]
        assert isinstance(found, Normaliser)
        return found

    def robot(self, name: str | None = None) -> BoundPolicy:
        """The policy bound to one robot; the name may be None if the policy has only one.

        Raises:
            ValueError: no such robot, or no name with several robots; the message lists them.
        """
        return BoundPolicy(self, pick(self.specs, name))

    @property
    @abstractmethod
    def text_processor(self) -> Any:
        """The tokenizer, or the processor of a vision-language model; saved with the policy."""

    def uses_previous_plan(self, robot: str | None = None) -> bool:
        """True if ``predict`` uses ``previous_plans``."""
        return False

    def samples(self, robot: str | None = None) -> bool:
        """True if ``predict`` draws random tokens and uses ``row_seeds``."""
        return False

    def uses_drafts(self, robot: str | None = None) -> bool:
        """True if ``predict`` generates text faster with ``drafts``."""
        return False

    def uses_known_actions(self, robot: str | None = None) -> bool:
        """True if ``predict`` uses ``leftovers``."""
        return False

    @abstractmethod
    def losses(self, batch: Batch) -> Losses:
        """Losses of the rows of every robot and of the web rows."""

    def act(
        self,
        images: Any,
        instruction: str | Sequence[str],
        state: Any = None,
        robot: str | None = None,
    ) -> np.ndarray:
        """Actions in robot units: (H, A) float32 for one observation, (B, H, A) for a list.

        Args:
            images: an (H, W, 3) uint8 numpy array or torch tensor for a policy with one camera; or
                a dict from camera to such images; or a list of either. They may have any size.
            instruction: one text, or a list with one text for each observation.
            state: (P,) measured state in robot units, or (B, P) for a list.
            robot: may be None if the policy has only one.

        Raises:
            ValueError: an input is missing or invalid, or the policy needs frame history.
        """
        name = pick(self.specs, robot)
        batch = observation_batch(self.specs[name], images, instruction, state)
        with evaluation_mode(self):
            inputs = batch.images_BVTCHW, batch.instructions, name, batch.state_BTP
            actions = self.predict(*inputs)[0]
        return actions[0] if batch.single else actions

    @abstractmethod
    def predict(
        self,
        images_BVTCHW: torch.Tensor,
        instructions: Sequence[str],
        robot: str | None = None,
        state_BTP: torch.Tensor | None = None,
        previous_plans: Sequence[str] = (),
        row_seeds: Sequence[int] = (),
        drafts: Sequence[Draft] = (),
        leftovers: Sequence[Leftover | None] = (),
    ) -> tuple[np.ndarray, list[str]]:
        """Actions (B, H, A) float32 in robot units, within the bounds, and each row's plan or "".

        Binary dimensions are at one of their bounds.

        Args:
            images_BVTCHW: uint8 in the camera order and image size of the spec.
            instructions: one for each row.
            robot: may be None if the policy has only one.
            state_BTP: measured state in robot units; needed if the spec has a ``state_dim``.
            previous_plans: each row's last plan (empty: none), see ``uses_previous_plan``.
            row_seeds: one seed for each row (default: the row's number), see ``samples``.
            drafts: last text of each row, see ``uses_drafts``; replaced by the new one.
            leftovers: rest of each row's last chunk, or None, see ``uses_known_actions``.

        Raises:
            ValueError: an unknown robot, or actions that are relative to a state that is missing.
        """

    def to_robot_units(
        self, prediction: Prediction, robot: str, state_BTP: torch.Tensor | None = None
    ) -> tuple[np.ndarray, list[str]]:
        """What ``predict`` returns, from actions in [-1, 1]; ActionError if one is not finite."""
        normalized = finite(self.specs[robot], prediction.normalized_actions_BHA).to(self.device)
        actions = self.normaliser(robot).inverse(normalized.float()).cpu().numpy()
        actions = to_legal_actions(self.specs[robot], actions, state_BTP)
        return actions, prediction.plans or [""] * len(actions)

    def train(self, mode: bool = True) -> BasePolicy:
        """Set the training mode; parts without trainable weights stay in evaluation mode.

        They have no dropout, and their batch statistics, which are weights, do not change. A
        network with adapters has the dropout of its configuration.
        """
        super().train(mode)
        for part in self.modules() if mode else ():
            weights = list(part.parameters())
            if weights and not any(weight.requires_grad for weight in weights):
                part.eval()
        return self

    def configure_model(self) -> None:
        """Divide the parameters among the processes, if Lightning's strategy has a device mesh."""
        if self.shard is not None and self.device_mesh is not None and not self._is_sharded:
            self.shard(self, self.device_mesh["data_parallel"])
            self._is_sharded = True

    def on_train_start(self) -> None:
        """Training mode, because libraries load pretrained networks in evaluation mode."""
        self.train()

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Weighted sum of the mean robot loss and the mean web loss, see ``training_loss``."""
        losses = self.losses(batch)
        add_metrics(self, "train", batch, losses)
        total = training_loss(losses, self.loss_weights, self.device)
        self.metrics.update("train/loss", total.detach())
        return total

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients, with the norm that the training run has computed already."""
        norm, self.gradient_norm = self.gradient_norm, None
        by_norm = gradient_clip_val and gradient_clip_algorithm == "norm"
        if by_norm and norm is not None and type(norm) is torch.Tensor:  # of this process alone
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grads_with_norm_(parameters, float(gradient_clip_val or 0), norm)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the metrics on held-out data."""
        losses = self.losses(batch)
        if batch.is_filler:
            return
        add_metrics(self, "val", batch, losses)
        add_validation_losses(self.metrics, losses)

    def pop_metrics(self, stage: str) -> dict[str, float]:
        """Means since the last call by name; every process has to call it.

        ``val/loss`` is the weighted sum of the means over all robot and all web losses.
        """
        found = self.metrics.compute_and_reset(stage, self.device)
        return with_validation_loss(found, self.loss_weights)

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule of the training run, see ``vla.training.optim``.

        Raises:
            RuntimeError: ``make_optimizers`` is not set.
        """
        if self.make_optimizers is None:
            raise RuntimeError("set policy.make_optimizers before trainer.fit(policy)")
        return self.make_optimizers(self)
