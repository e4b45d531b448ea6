"""RT-1 (arXiv 2212.06817), the baseline of RT-2: interchangeable with ``VLAPolicy`` in every YAML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import nn
from torch.nn import functional

from vla.actions.bins import UniformBins
from vla.actions.normalise import Mode
from vla.config import Slot, build, register
from vla.connectors.token_learner import TokenLearner
from vla.contract import Contract
from vla.heads.base import HeadLoss, Prediction
from vla.heads.queries import flat
from vla.module import Losses, PolicyModule
from vla.optim import OptimConfig
from vla.schema import Batch
from vla.vision.film_efficientnet import FilmEfficientNet


@register("policy", "rt1")
class RT1Policy(PolicyModule):
    """FiLM-EfficientNet on the instruction's sentence ► TokenLearner ► causal transformer over the frames ► A x 256 choices at once.

    The frames of history are the data's (``data.window.history``: RT-1 has 6). It answers no questions: train it on robot data alone.

    Args:
        text: slot: the sentence encoder. model, image_size, weights, stages, place: see ``FilmEfficientNet``. tokens: of a frame (8).
        width, layers, heads, ratio: of the transformer (512, 8, 8; ratio: hidden width of its MLPs). bins: a dim (256).
    """

    def __init__(
        self, text: Annotated[dict[str, Any], Slot("text")], model: str = "efficientnet_b3", image_size: int = 300, weights: bool | str = False,
        stages: int | None = None, place: bool = False, tokens: int = 8, width: int = 512, layers: int = 8, heads: int = 8, ratio: float = 2.0,
        bins: int = 256, normalise: Mode = "bounds", *, contracts: dict[str, Contract], tokenizer: Any = None, optim: OptimConfig | None = None, steps: int = 1,
        pretrained: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(contracts, optim, steps, normalise)
        contract = self.contract  # one robot
        if contract.relative:
            raise ValueError("data.relative: RT-1 is given no state to put back; choose policy: vla")
        self.text = build("text", text, "policy.text", tokenizer=tokenizer, pretrained=pretrained)
        self.vision = FilmEfficientNet(model, image_size, weights, stages, self.text.width, width, place, pretrained)
        self.learner = TokenLearner(tokens, in_width=width, out_width=width)
        frames, outputs = len(contract.cameras) * contract.history, contract.action_space.dim * contract.horizon
        self.position_LD = nn.Parameter(torch.randn(frames * tokens + outputs, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, heads, int(ratio * width), dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.codec = UniformBins(bins, action_dim=contract.action_space.dim, horizon=contract.horizon)
        self.out = nn.Linear(width, bins)
        self.outputs = outputs

    @property
    def text_processor(self) -> Any:
        """See ``PolicyModule``."""
        return self.text.tokenizer

    def logits(self, images_BVTCHW: torch.Tensor, owner_K: torch.Tensor, instructions: list[str]) -> torch.Tensor:
        """uint8 views and K instructions, each about row ``owner_K[k]``, to (K, H, A, bins)."""
        frames = images_BVTCHW.transpose(1, 2).flatten(1, 2)  # in order of time: the instruction is heard inside the eyes
        count, each = len(instructions), frames.shape[1]
        owner = (owner_K[:, None] * each + torch.arange(each, device=owner_K.device)).flatten()
        sentence = self.text(instructions).repeat_interleave(each, 0)
        tokens = self.learner(self.vision(frames.flatten(0, 1), sentence, owner)).reshape(count, -1, self.position_LD.shape[1])
        sequence = functional.pad(tokens, (0, 0, 0, self.outputs)) + self.position_LD  # action places hold their position alone
        length = sequence.shape[1]
        hidden_from = torch.ones((length, length), dtype=torch.bool, device=sequence.device).triu(1)
        states = self.transformer(sequence, mask=hidden_from, is_causal=True)[:, -self.outputs :]
        return self.out(states).unflatten(1, (self.contract.horizon, -1))

    def losses(self, batch: Batch) -> Losses:
        """Cross-entropy of every number's bin.

        Raises:
            ValueError: the batch has web samples.
        """
        if batch.web is not None:
            raise ValueError("policy rt1 answers no questions: give data.mixture robot data alone")
        out = Losses()
        for part in batch.robots:
            logits = self.logits(part.images_BVTCHW, part.owner_K, part.instructions)
            target, best = self.codec.index(self.normaliser()(part.actions_KHA)), logits.detach().argmax(-1)
            loss = functional.cross_entropy(logits.flatten(0, 2), target.flatten(), reduction="none").reshape(target.shape)
            right = (best == target)[part.mask_KH].flatten()
            out.robots.append(HeadLoss(*flat(loss, part.mask_KH), self.codec.value(best), right))
        return out

    def plan_and_act(
        self,
        images_BVTCHW: torch.Tensor,
        instructions: list[str],
        robot: str,
        state_BTP: torch.Tensor | None = None,
        before: Sequence[str] = (),
    ) -> Prediction:
        """See ``PolicyModule``; RT-1 does not look at the state, and has no plans."""
        owner = torch.arange(len(instructions), device=images_BVTCHW.device)
        return Prediction(self.codec.value(self.logits(images_BVTCHW, owner, instructions).argmax(-1)))
