"""The page to read first: vision ► connector ► decoder ► head, as one LightningModule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import nn

from vla.actions.normalise import Mode
from vla.config import ConfigError, Slot, build, register
from vla.contract import Contract, pick
from vla.decoders.base import Prefix
from vla.decoders.text import PROMPT, FreeText, continuation, text_loss, write
from vla.heads.base import Prediction
from vla.module import Losses, PolicyModule
from vla.optim import OptimConfig
from vla.proprioception import StateEncoder
from vla.schema import Batch


@register("policy", "vla")
class VLAPolicy(PolicyModule):
    """A vision-language-action policy composed of four slots, for one robot or several (each has a head of its own kind and size).

    Args:
        decoder, head: slots. vision, connector: slots too, and none of them beside a decoder that is a whole vision-language model.
        state: look at the robot's measured state too (one more token, see ``StateEncoder``).
        normalise, normalise_dims: how robot units become [-1, 1], and exceptions by dim, see ``Normaliser``. robot_weight, web_weight: weights of the two mean losses in the sum.
        contracts, tokenizer, optim, steps, chunks, words, folder: wired by training or loading.

    Raises:
        ConfigError: vision or connector is missing, or given beside a whole vision-language model; state is asked for and cannot be had.
    """

    def __init__(
        self,
        decoder: Annotated[dict[str, Any], Slot("decoder")],
        head: Annotated[dict[str, Any], Slot("head")],
        vision: Annotated[dict[str, Any], Slot("vision")] | None = None,
        connector: Annotated[dict[str, Any], Slot("connector")] | None = None,
        normalise: Mode = "bounds",
        normalise_dims: dict[str, Mode] | None = None,
        web_weight: float = 1.0,
        robot_weight: float = 1.0,
        state: bool = False,
        *,
        contracts: dict[str, Contract],
        tokenizer: Any = None,
        optim: OptimConfig | None = None,
        steps: int = 1,
        pretrained: bool = True,
        chunks: dict[str, torch.Tensor] | None = None,
        words: Counter[str] | None = None,
        folder: Path | None = None,
    ) -> None:
        super().__init__(contracts, optim, steps, normalise, robot_weight, web_weight, normalise_dims)
        self.vision = None if vision is None else build("vision", vision, "policy.vision", pretrained=pretrained)
        self.decoder = build("decoder", decoder, "policy.decoder", tokenizer=tokenizer, pretrained=pretrained, folder=folder)
        if self.decoder.whole != (vision is None) or self.decoder.whole != (connector is None):
            wanted = "sees for itself: remove vision and connector" if self.decoder.whole else "needs vision and connector"
            raise ConfigError(f"policy: decoder {type(self.decoder).__name__} {wanted}")
        self.connector = None
        if self.vision is not None:
            widths = {"in_width": self.vision.width, "out_width": self.decoder.width}
            self.connector = build("connector", connector, "policy.connector", decoder=self.decoder, **widths)
        if state and self.decoder.whole:
            raise ConfigError(
                "policy.state=true: a whole vision-language model has no place for it; compose vision and decoder instead"
            )
        self.heads, self.views_VTD = nn.ModuleList(), nn.ParameterDict()  # a robot's place among the contracts is its number
        self.states = nn.ModuleList()
        for name, contract in self.contracts.items():
            if state:
                self.states.append(StateEncoder(contract.statistics.get("state"), contract.history, self.decoder.width))
            space, normaliser = contract.learned_space, self.normaliser(name)
            seen = None if chunks is None or name not in chunks else normaliser(chunks[name])
            self.heads.append(build(
                "head", head, "policy.head", decoder=self.decoder, action_dim=space.dim, action_space=space, horizon=contract.horizon, words=words,
                quantiles=normaliser.quantiles, chunks=seen,
            ))  # fmt: skip
            views = len(contract.cameras) * contract.history
            if views > 1 and self.vision is not None:  # which camera, which moment; a single picture needs no name
                self.views_VTD[str(len(self.heads) - 1)] = nn.Parameter(torch.randn(views, self.decoder.width) * 0.02)
        self.contracts = {
            n: replace(c, state_dim=len(c.statistics["state"]["mean"]) if state or c.relative else 0)
            for n, c in self.contracts.items()
        }
        self.decoder.settle(sorted({row for h in self.heads for row in getattr(h, "new_rows", [])}))

    def head(self, robot: str | None = None) -> Any:
        """The action head of a robot; ValueError as in ``pick``."""
        return self.heads[self._number(robot)]

    def _number(self, robot: str | None) -> int:
        return list(self.contracts).index(pick(self.contracts, robot))

    @property
    def text_processor(self) -> Any:
        """See ``PolicyModule``."""
        return getattr(self.decoder, "processor", None) or self.decoder.tokenizer

    # -- the forward line -------------------------------------------------------------------------------------------------------

    def prefix(self, images_BVTCHW: torch.Tensor, robot: str | None = None, state_BTP: torch.Tensor | None = None) -> Prefix:
        """uint8 images to what the decoder knows of them: every view and frame in order, then the state. robot: whose they are; none: the web's."""
        if self.vision is None or self.connector is None:
            return self.decoder.see(images_BVTCHW)
        b, v, t = images_BVTCHW.shape[:3]
        tokens = self.connector(self.vision(images_BVTCHW.flatten(0, 2)))
        tokens = tokens.unflatten(0, (b, v * t))
        if v * t > 1:
            tokens = tokens + self.views_VTD[str(self._number(robot))][None, :, None]
        tokens = tokens.flatten(1, 2)
        if self.states and robot is not None:
            tokens = torch.cat([tokens, self.states[self._number(robot)](state_BTP)], 1)
        if getattr(self.connector, "crosses", False):
            return Prefix(tokens[:, :0], memory_BMD=tokens)
        return Prefix(tokens)

    def losses(self, batch: Batch) -> Losses:
        """Robot losses by the heads and web loss by plain next-token prediction; either may be absent."""
        out = Losses()
        for part in batch.robots:
            unit_KHA = self.normaliser(part.robot)(part.actions_KHA)
            prefix = self.prefix(part.images_BVTCHW, part.robot, part.state_BTP)
            out.robots.append(self.head(part.robot).loss(self.decoder, prefix, part, unit_KHA))
        if batch.web is not None:
            tok = self.decoder.tokenizer
            prompts = [PROMPT.format(question=q) for q in batch.web.questions]
            answers = [[*continuation(tok, f" {a}"), tok.eos_token_id] for a in batch.web.answers]
            prefix = self.prefix(batch.web.images_BCHW[:, None, None])
            out.web = text_loss(self.decoder, prefix, batch.web.owner_K, prompts, answers, batch.web.sees_K)
        return out

    def holds_plan(self, robot: str | None = None) -> bool:
        """See ``PolicyModule``."""
        return getattr(self.head(robot), "hold_plan", 0.0) > 0

    def plan_and_act(
        self,
        images_BVTCHW: torch.Tensor,
        instructions: list[str],
        robot: str,
        state_BTP: torch.Tensor | None = None,
        before: Sequence[str] = (),
    ) -> Prediction:
        """See ``PolicyModule``."""
        held = {"before": before} if before and self.holds_plan(robot) else {}
        return self.head(robot).predict(self.decoder, self.prefix(images_BVTCHW, robot, state_BTP), instructions, **held)

    @torch.no_grad()
    def answer(self, images_BCHW: torch.Tensor, questions: Sequence[str], max_tokens: int = 24) -> list[str]:
        """Free decoding of one question a picture."""
        writers = [FreeText(self.decoder.tokenizer.eos_token_id, max_tokens) for _ in questions]
        prefix = self.prefix(images_BCHW[:, None, None].to(self.device))
        write(self.decoder, prefix, [PROMPT.format(question=q) for q in questions], writers)
        return [self.decoder.tokenizer.decode(w.tokens, skip_special_tokens=True).strip() for w in writers]
