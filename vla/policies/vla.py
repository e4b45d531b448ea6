"""VLAPolicy, the page to read first: vision encoder, connector, decoder and action head."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vla.config import build, register
from vla.errors import ConfigError
from vla.models.decoders.base import Prefix
from vla.models.decoders.drafts import Draft
from vla.models.decoders.generation import generate_text
from vla.models.decoders.sampling import GREEDY
from vla.models.prompts import question_prompt
from vla.models.state_encoder import StateEncoder
from vla.policies.base import BasePolicy, Losses
from vla.policies.slots import check_slots, has_cameras
from vla.policies.spec import RobotSpec, pick
from vla.policies.units import known_actions, normalized_targets
from vla.policies.vla_config import VLAPolicyConfig
from vla.policies.web import web_loss
from vla.types import Batch, Leftover


@register("policy", "vla")
class VLAPolicy(BasePolicy):
    """Vision-language-action policy of four slots, for one robot or several.

    Each robot has its own head, state encoder and camera embeddings; all else is shared.

    Args:
        config: the user's options.
        specs: robot -> inputs, outputs and units.
        tokenizer: None if the decoder brings its own.
        pretrained: download or read pretrained weights; False when a saved policy is loaded.
        chunks: robot -> (N, H, A) sample actions in robot units, for action codecs that are fitted.
        words: word counts of the training corpus, for the choice of action tokens.
        folder: tokenizer folder of a saved policy.

    Raises:
        ConfigError: the slots do not fit together, or ``state`` is not possible.
    """

    def __init__(
        self,
        config: VLAPolicyConfig,
        *,
        specs: dict[str, RobotSpec],
        tokenizer: Any = None,
        pretrained: bool = True,
        chunks: dict[str, torch.Tensor] | None = None,
        words: Counter[str] | None = None,
        folder: Path | None = None,
    ) -> None:
        weights = config.robot_weight, config.web_weight
        super().__init__(specs, config.normalise, *weights, config.normalise_dims)
        self.vision = None
        if config.vision is not None and has_cameras(self.specs):
            self.vision = build("vision", config.vision, "policy.vision", pretrained=pretrained)
        self.decoder = build(
            "decoder",
            config.decoder,
            "policy.decoder",
            tokenizer=tokenizer,
            pretrained=pretrained,
            folder=folder,
        )
        check_slots(config, self.decoder, self.specs)
        self.connector = None
        if self.vision is not None:
            widths = {"in_width": self.vision.width, "out_width": self.decoder.width}
            self.connector = build(
                "connector", config.connector, "policy.connector", decoder=self.decoder, **widths
            )
        # The index in these lists is the robot's position in the sorted specs.
        self.heads, self.states = nn.ModuleList(), nn.ModuleList()
        self.views_VTD = nn.ParameterDict()
        for name in self.specs:
            self._add_robot(name, config, words, (chunks or {}).get(name))
        self.decoder.apply_finetuning(
            sorted({i for head in self.heads for i in getattr(head, "trainable_token_ids", [])})
        )

    def _add_robot(
        self,
        name: str,
        config: VLAPolicyConfig,
        words: Counter[str] | None,
        actions_NHA: torch.Tensor | None,
    ) -> None:
        """Append the state encoder, head and camera embeddings of a robot; set its state_dim."""
        spec, normaliser, width = self.specs[name], self.normaliser(name), self.decoder.width
        if config.state:
            self.states.append(StateEncoder(spec.statistics.get("state"), spec.history, width))
        space = spec.learned_space
        self.heads.append(
            build(
                "head",
                config.head,
                "policy.head",
                decoder=self.decoder,
                action_dim=space.dim,
                action_space=space,
                horizon=spec.horizon,
                words=words,
                quantiles=normaliser.quantiles,
                chunks=None if actions_NHA is None else normaliser(actions_NHA),
            )
        )
        views = len(spec.cameras) * spec.history
        if views > 1 and self.vision is not None:  # a single image needs no embedding
            embeddings = torch.randn(views, width) * 0.02
            self.views_VTD[str(len(self.heads) - 1)] = nn.Parameter(embeddings)
        state_dim = len(spec.statistics["state"]["mean"]) if config.state or spec.relative else 0
        self.specs[name] = replace(spec, state_dim=state_dim)

    def head(self, robot: str | None = None) -> Any:
        """The action head of a robot; ValueError as in ``pick``."""
        return self.heads[self._index(robot)]

    def _index(self, robot: str | None) -> int:
        return list(self.specs).index(pick(self.specs, robot))

    @property
    def text_processor(self) -> Any:
        """See ``BasePolicy``."""
        return getattr(self.decoder, "processor", None) or self.decoder.tokenizer

    def prefix(
        self,
        images_BVTCHW: torch.Tensor,
        robot: str | None = None,
        state_BTP: torch.Tensor | None = None,
    ) -> Prefix:
        """Decoder input of uint8 images: the tokens of every view and frame, then of the state.

        Args:
            images_BVTCHW: uint8 images.
            robot: None for web images.
            state_BTP: measured state in robot units, for policies with a state.
        """
        state = None
        if self.states and robot is not None:
            state = self.states[self._index(robot)](state_BTP)
        if self.decoder.is_vlm:
            return self.decoder.image_prefix(images_BVTCHW, state)
        tokens = self._image_tokens(images_BVTCHW, robot)
        seen = tokens.shape[1] > 0
        if state is not None:
            tokens = torch.cat([tokens, state], 1)
        if seen and getattr(self.connector, "uses_cross_attention", False):
            return Prefix(tokens[:, :0], cross_attention_BND=tokens)
        return Prefix(tokens)

    def _image_tokens(self, images_BVTCHW: torch.Tensor, robot: str | None) -> torch.Tensor:
        """Tokens (B, N, D) of every view and frame; N is 0 without cameras."""
        b, v, t = images_BVTCHW.shape[:3]
        if v == 0:
            return torch.zeros((b, 0, self.decoder.width), device=images_BVTCHW.device)
        if self.vision is None or self.connector is None:
            raise ConfigError("the robots of this policy have no cameras: it encodes no images")
        tokens = self.connector(self.vision(images_BVTCHW.flatten(0, 2))).unflatten(0, (b, v * t))
        if v * t > 1:
            tokens = tokens + self.views_VTD[str(self._index(robot))][None, :, None]
        return tokens.flatten(1, 2)

    def losses(self, batch: Batch) -> Losses:
        """Losses of the heads, and the next-token loss of web answers; either may be absent."""
        out = Losses()
        for part in batch.robots:
            targets_KHA = normalized_targets(self.normaliser(part.robot), part)
            prefix = self.prefix(part.images_BVTCHW, part.robot, part.state_BTP)
            out.robots.append(self.head(part.robot).loss(self.decoder, prefix, part, targets_KHA))
        if batch.web is not None:
            out.web = web_loss(self, batch.web)
        return out

    def uses_previous_plan(self, robot: str | None = None) -> bool:
        """See ``BasePolicy``."""
        return getattr(self.head(robot), "plan_switch_margin", 0.0) > 0

    def samples(self, robot: str | None = None) -> bool:
        """See ``BasePolicy``."""
        return getattr(self.head(robot), "sampling", GREEDY).temperature > 0

    def uses_drafts(self, robot: str | None = None) -> bool:
        """See ``BasePolicy``."""
        return self.decoder.takes_drafts and hasattr(self.head(robot), "plan_format")

    def uses_known_actions(self, robot: str | None = None) -> bool:
        """See ``BasePolicy``."""
        return getattr(self.head(robot), "uses_known_actions", False)

    @torch.no_grad()
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
        """See ``BasePolicy``."""
        name = pick(self.specs, robot)
        optional: dict[str, Any] = {"row_seeds": row_seeds} if self.samples(name) else {}
        if self.uses_previous_plan(name):
            optional["previous_plans"] = previous_plans
        if self.uses_drafts(name):
            optional["drafts"] = drafts
        if any(leftovers):
            optional["known"] = known_actions(self, name, leftovers, state_BTP)
        prefix = self.prefix(images_BVTCHW.to(self.device), name, state_BTP).checked()
        made = self.head(name).predict(self.decoder, prefix, list(instructions), **optional)
        return self.to_robot_units(made, name, state_BTP)

    @torch.no_grad()
    def answer(
        self, images_BCHW: torch.Tensor, questions: Sequence[str], max_tokens: int = 24
    ) -> list[str]:
        """Greedy answers to one question about each image (uint8)."""
        prefix = self.prefix(images_BCHW[:, None, None].to(self.device))
        return generate_text(self.decoder, prefix, [*map(question_prompt, questions)], max_tokens)
