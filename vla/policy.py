"""The page to read first: vision ► connector ► decoder ► head, as one LightningModule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import lightning
import numpy as np
import torch
from torchmetrics import MeanMetric

from vla.actions.normalise import Mode, Normaliser
from vla.config import Slot, build, register
from vla.contract import Contract
from vla.decoders.text import PROMPT, TextLoss, encode, generate, text_loss
from vla.optim import OptimConfig, make_optimizer
from vla.schema import Batch


@register("policy", "vla")
class VLAPolicy(lightning.LightningModule):
    """A vision-language-action policy composed of four slots.

    Args:
        vision, connector, decoder, head: slots. normalise: how robot units become [-1, 1], see ``Normaliser``.
        robot_weight, web_weight: weights of the two mean losses in the sum.
        contract, tokenizer, optim, steps: wired by training or loading.
    """

    def __init__(
        self,
        vision: Annotated[dict[str, Any], Slot("vision")],
        connector: Annotated[dict[str, Any], Slot("connector")],
        decoder: Annotated[dict[str, Any], Slot("decoder")],
        head: Annotated[dict[str, Any], Slot("head")],
        normalise: Mode = "bounds",
        web_weight: float = 1.0,
        robot_weight: float = 1.0,
        *,
        contract: Contract,
        tokenizer: Any = None,
        optim: OptimConfig | None = None,
        steps: int = 1,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        self.contract, self.optim, self.steps, self.web_weight = contract, optim or OptimConfig(), steps, web_weight
        self.robot_weight = robot_weight
        self.vision = build("vision", vision, pretrained=pretrained)
        self.decoder = build("decoder", decoder, tokenizer=tokenizer, pretrained=pretrained)
        self.connector = build("connector", connector, in_width=self.vision.width, out_width=self.decoder.width)
        self.head = build("head", head, decoder=self.decoder, action_dim=contract.action_space.dim, horizon=contract.horizon)
        self.normaliser = Normaliser(contract.action_space, contract.statistics.get("actions"), normalise)
        self.metrics = torch.nn.ModuleDict()

    # -- the forward line -------------------------------------------------------------------------------------------------------

    def prefix(self, images_BVTCHW: torch.Tensor) -> torch.Tensor:
        """uint8 images to the decoder's prefix (B, V·T·N, D): every view and frame in order."""
        b, v, t = images_BVTCHW.shape[:3]
        tokens = self.connector(self.vision(images_BVTCHW.flatten(0, 2)))
        return tokens.reshape(b, v * t * tokens.shape[1], -1)

    def losses(self, batch: Batch) -> dict[str, Any]:
        """Robot loss by the head and web loss by plain next-token prediction; either may be absent."""
        out: dict[str, Any] = {}
        if batch.images_BVTCHW is not None:
            unit_KHA = self.normaliser(batch.actions_KHA)
            out["robot"] = self.head.loss(self.decoder, self.prefix(batch.images_BVTCHW), batch, unit_KHA)
        if batch.web_images_BCHW is not None and batch.web_owner_K is not None:
            tok = self.decoder.tokenizer
            prompts = [encode(tok, PROMPT.format(question=q)) for q in batch.questions]
            answers = [[*encode(tok, f" {a}"), tok.eos_token_id] for a in batch.answers]
            prefix = self.prefix(batch.web_images_BCHW[:, None, None])
            out["web"] = text_loss(self.decoder, prefix, batch.web_owner_K, prompts, answers, batch.web_sees_K)
        return out

    @torch.no_grad()
    def act(self, images_BVTCHW: torch.Tensor, instructions: Sequence[str]) -> np.ndarray:
        """uint8 images and one instruction a row to actions (B, H, A) float32 in robot units, inside the action space's bounds."""
        unit = self.head.predict(self.decoder, self.prefix(images_BVTCHW.to(self.device)), list(instructions))
        actions = self.normaliser.inverse(unit.float()).cpu().numpy()
        space = self.contract.action_space
        return np.clip(actions, np.array(space.low, np.float32), np.array(space.high, np.float32))

    @torch.no_grad()
    def answer(self, images_BCHW: torch.Tensor, questions: Sequence[str], max_tokens: int = 24) -> list[str]:
        """Free decoding of one question a picture."""
        tok = self.decoder.tokenizer
        prompts = [encode(tok, PROMPT.format(question=q)) for q in questions]
        ids = generate(self.decoder, self.prefix(images_BCHW[:, None, None].to(self.device)), prompts, max_tokens)
        return [tok.decode(row, skip_special_tokens=True).strip() for row in ids]

    # -- Lightning --------------------------------------------------------------------------------------------------------------

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
    def load(cls, directory: str | Path, device: str = "cpu") -> VLAPolicy:
        """A saved policy, ready to act. Needs nothing but the folder; see ``vla.saving``."""
        from vla.saving import load_policy

        return load_policy(directory, device)

    def configure_optimizers(self) -> Any:
        """AdamW and schedule, see ``vla.optim``."""
        return make_optimizer(self, self.optim, self.steps)
