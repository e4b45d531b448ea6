"""The page to read first: vision ► connector ► decoder ► head, as one LightningModule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import nn

from vla.actions.normalise import Mode
from vla.config import ConfigError, Slot, build, register
from vla.contract import Contract
from vla.decoders.base import Prefix
from vla.decoders.text import PROMPT, FreeText, continuation, text_loss, write
from vla.heads.base import Prediction
from vla.module import PolicyModule
from vla.optim import OptimConfig
from vla.schema import Batch


@register("policy", "vla")
class VLAPolicy(PolicyModule):
    """A vision-language-action policy composed of four slots.

    Args:
        decoder, head: slots. vision, connector: slots too, and none of them beside a decoder that is a whole vision-language model.
        normalise: how robot units become [-1, 1], see ``Normaliser``. robot_weight, web_weight: weights of the two mean losses in the sum.
        contract, tokenizer, optim, steps, chunks, words, folder: wired by training or loading.

    Raises:
        ConfigError: vision or connector is missing, or given beside a whole vision-language model.
    """

    def __init__(
        self,
        decoder: Annotated[dict[str, Any], Slot("decoder")],
        head: Annotated[dict[str, Any], Slot("head")],
        vision: Annotated[dict[str, Any], Slot("vision")] | None = None,
        connector: Annotated[dict[str, Any], Slot("connector")] | None = None,
        normalise: Mode = "bounds",
        web_weight: float = 1.0,
        robot_weight: float = 1.0,
        *,
        contract: Contract,
        tokenizer: Any = None,
        optim: OptimConfig | None = None,
        steps: int = 1,
        pretrained: bool = True,
        chunks: torch.Tensor | None = None,
        words: Counter[str] | None = None,
        folder: Path | None = None,
    ) -> None:
        super().__init__(contract, optim, steps, normalise, robot_weight, web_weight)
        space, horizon = contract.action_space, contract.horizon
        self.vision = None if vision is None else build("vision", vision, "policy.vision", pretrained=pretrained)
        self.decoder = build("decoder", decoder, "policy.decoder", tokenizer=tokenizer, pretrained=pretrained, folder=folder)
        if self.decoder.whole != (vision is None) or self.decoder.whole != (connector is None):
            wanted = "sees for itself: remove vision and connector" if self.decoder.whole else "needs vision and connector"
            raise ConfigError(f"policy: decoder {type(self.decoder).__name__} {wanted}")
        self.connector, self.view_VTD = None, None
        if self.vision is not None:
            widths = {"in_width": self.vision.width, "out_width": self.decoder.width}
            self.connector = build("connector", connector, "policy.connector", decoder=self.decoder, **widths)
            views = len(contract.cameras) * contract.history
            if views > 1:  # one picture needs no name
                self.view_VTD = nn.Parameter(torch.randn(views, self.decoder.width) * 0.02)
        self.head = build(
            "head", head, "policy.head", decoder=self.decoder, action_dim=space.dim, action_space=space, horizon=horizon, words=words,
            quantiles=self.normaliser.quantiles, chunks=None if chunks is None else self.normaliser(chunks),
        )  # fmt: skip
        self.decoder.settle(getattr(self.head, "new_rows", []))

    @property
    def text_processor(self) -> Any:
        """See ``PolicyModule``."""
        return getattr(self.decoder, "processor", None) or self.decoder.tokenizer

    # -- the forward line -------------------------------------------------------------------------------------------------------

    def prefix(self, images_BVTCHW: torch.Tensor) -> Prefix:
        """uint8 images to what the decoder knows of them: every view and frame in order."""
        if self.vision is None or self.connector is None:
            return self.decoder.see(images_BVTCHW)
        b, v, t = images_BVTCHW.shape[:3]
        tokens = self.connector(self.vision(images_BVTCHW.flatten(0, 2)))
        tokens = tokens.unflatten(0, (b, v * t))
        if self.view_VTD is not None and v * t > 1:  # web pictures are single
            tokens = tokens + self.view_VTD[None, :, None]
        tokens = tokens.flatten(1, 2)
        if getattr(self.connector, "crosses", False):
            return Prefix(tokens[:, :0], memory_BMD=tokens)
        return Prefix(tokens)

    def losses(self, batch: Batch) -> dict[str, Any]:
        """Robot loss by the head and web loss by plain next-token prediction; either may be absent."""
        out: dict[str, Any] = {}
        if batch.images_BVTCHW is not None:
            unit_KHA = self.normaliser(batch.actions_KHA)
            out["robot"] = self.head.loss(self.decoder, self.prefix(batch.images_BVTCHW), batch, unit_KHA)
        if batch.web_images_BCHW is not None and batch.web_owner_K is not None:
            tok = self.decoder.tokenizer
            prompts = [PROMPT.format(question=q) for q in batch.questions]
            answers = [[*continuation(tok, f" {a}"), tok.eos_token_id] for a in batch.answers]
            prefix = self.prefix(batch.web_images_BCHW[:, None, None])
            out["web"] = text_loss(self.decoder, prefix, batch.web_owner_K, prompts, answers, batch.web_sees_K)
        return out

    def plan_and_act(self, images_BVTCHW: torch.Tensor, instructions: list[str]) -> Prediction:
        """See ``PolicyModule``."""
        return self.head.predict(self.decoder, self.prefix(images_BVTCHW), instructions)

    @torch.no_grad()
    def answer(self, images_BCHW: torch.Tensor, questions: Sequence[str], max_tokens: int = 24) -> list[str]:
        """Free decoding of one question a picture."""
        writers = [FreeText(self.decoder.tokenizer.eos_token_id, max_tokens) for _ in questions]
        prefix = self.prefix(images_BCHW[:, None, None].to(self.device))
        write(self.decoder, prefix, [PROMPT.format(question=q) for q in questions], writers)
        return [self.decoder.tokenizer.decode(w.tokens, skip_special_tokens=True).strip() for w in writers]
