"""RT-1 (arXiv 2212.06817), the baseline of RT-2; every YAML may use it instead of ``VLAPolicy``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from vla.config import Slot, build, register
from vla.models.actions.bins import UniformBins
from vla.models.actions.normalise import Mode
from vla.models.connectors.token_learner import TokenLearner
from vla.models.decoders.drafts import Draft
from vla.models.heads.base import HeadLoss, Prediction
from vla.models.heads.queries import valid_items
from vla.models.vision.film_efficientnet import FilmEfficientNet
from vla.policies.base import BasePolicy, Losses
from vla.policies.spec import RobotSpec, pick
from vla.policies.units import normalized_targets
from vla.types import Batch, Leftover


@dataclass(frozen=True)
class RT1PolicyConfig:
    """The section ``policy:`` of a run, for ``name: rt1``."""

    # Sentence encoder of the instruction.
    text: Annotated[dict[str, Any], Slot("text")]
    # Name of the EfficientNet in timm.
    model: str = "efficientnet_b3"
    # Side in pixels to which images are resized.
    image_size: int = 300
    # Weights of the EfficientNet. true: timm's; a text: a file or package:NAME/PATH; false: random.
    weights: bool | str = False
    # Number of EfficientNet stages that are used; null: all.
    stages: int | None = None
    # Add a 2-D sine position code to the image tokens; RT-1 has none, small images need it.
    place: bool = False
    # Tokens of each frame, made by the TokenLearner.
    tokens: int = 8
    # Width of the transformer.
    width: int = 512
    # Layers of the transformer.
    layers: int = 8
    # Attention heads of the transformer; must divide the width.
    heads: int = 8
    # Hidden width of the transformer's MLPs divided by its width.
    ratio: float = 2.0
    # Bins of each action dimension.
    bins: int = 256
    # What becomes [-1, 1]: bounds of the action space, quantiles q01 to q99 or min_max of the data,
    # z_score (mean +- 3 standard deviations), or identity.
    normalise: Mode = "bounds"


@register("policy", "rt1")
class RT1Policy(BasePolicy):
    """RT-1: FiLM-EfficientNet, TokenLearner, and a causal transformer over the frames.

    It predicts all action dimensions at once. RT-1 has 6 frames (``data.window.history``). It
    cannot answer questions, so it is trained on robot data only.

    Raises:
        ValueError: several robots, no cameras, or relative actions.
    """

    def __init__(
        self,
        config: RT1PolicyConfig,
        *,
        specs: dict[str, RobotSpec],
        tokenizer: Any = None,
        pretrained: bool = True,
    ) -> None:
        super().__init__(specs, config.normalise)
        spec, width = self.spec, config.width
        if spec.relative:
            raise ValueError(
                "data.relative: RT-1 has no state input for relative actions; use policy.name=vla"
            )
        if not spec.cameras:
            raise ValueError(
                "policy: RT-1 needs cameras; use policy.name=vla with policy.state=true"
            )
        self.text = build(
            "text", config.text, "policy.text", tokenizer=tokenizer, pretrained=pretrained
        )
        self.vision = FilmEfficientNet(
            config.model,
            config.image_size,
            config.weights,
            config.stages,
            self.text.width,
            width,
            config.place,
            pretrained,
        )
        self.learner = TokenLearner(config.tokens, in_width=width, out_width=width)
        frames, outputs = len(spec.cameras) * spec.history, spec.action_space.dim * spec.horizon
        length = frames * config.tokens + outputs
        self.position_LD = nn.Parameter(torch.randn(length, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width,
            config.heads,
            int(config.ratio * width),
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.transformer = nn.TransformerEncoder(
            layer, config.layers, norm=nn.LayerNorm(width), enable_nested_tensor=False
        )
        dims = {"action_dim": spec.action_space.dim, "horizon": spec.horizon}
        self.codec = UniformBins(config.bins, **dims)
        self.out = nn.Linear(width, config.bins)
        self.outputs = outputs

    @property
    def text_processor(self) -> Any:
        """See ``BasePolicy``."""
        return self.text.tokenizer

    def logits(
        self, images_BVTCHW: torch.Tensor, image_index_K: torch.Tensor, instructions: list[str]
    ) -> torch.Tensor:
        """(K, H, A, bins) for K instructions; instruction k belongs to row ``image_index_K[k]``."""
        frames = images_BVTCHW.transpose(1, 2).flatten(1, 2)  # in order of time
        count, per_row = len(instructions), frames.shape[1]
        offsets = torch.arange(per_row, device=image_index_K.device)
        image_index = (image_index_K[:, None] * per_row + offsets).flatten()
        sentence = self.text(instructions).repeat_interleave(per_row, 0)
        tokens = self.learner(self.vision(frames.flatten(0, 1), sentence, image_index))
        tokens = tokens.reshape(count, -1, self.position_LD.shape[1])
        # The places of the actions have a position embedding and no other input.
        sequence = functional.pad(tokens, (0, 0, 0, self.outputs)) + self.position_LD
        length = sequence.shape[1]
        masked = torch.ones((length, length), dtype=torch.bool, device=sequence.device).triu(1)
        states = self.transformer(sequence, mask=masked, is_causal=True)[:, -self.outputs :]
        return self.out(states).unflatten(1, (self.spec.horizon, -1))

    def losses(self, batch: Batch) -> Losses:
        """Cross-entropy of the bin of every action number.

        Raises:
            ValueError: the batch has web samples.
        """
        if batch.web is not None:
            raise ValueError(
                "policy rt1 answers no questions: keep only robot data in data.sampling_weights"
            )
        out = Losses()
        for part in batch.robots:
            logits = self.logits(part.images_BVTCHW, part.image_index_K, part.instructions)
            target = self.codec.index(normalized_targets(self.normaliser(), part))
            best = logits.detach().argmax(-1)
            loss = functional.cross_entropy(
                logits.flatten(0, 2), target.flatten(), reduction="none"
            ).reshape(target.shape)
            right = (best == target)[part.mask_KH].flatten()
            out.robots.append(
                HeadLoss(*valid_items(loss, part.mask_KH), self.codec.value(best), right)
            )
        return out

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
        """See ``BasePolicy``; RT-1 uses no state, plans, seeds or leftovers."""
        name = pick(self.specs, robot)
        rows = torch.arange(len(instructions), device=self.device)
        logits = self.logits(images_BVTCHW.to(self.device), rows, list(instructions))
        return self.to_robot_units(Prediction(self.codec.most_likely(logits)), name)
