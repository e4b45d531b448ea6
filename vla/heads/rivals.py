"""Which words compete with the right one while a robot's texts are learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from vla.decoders.base import Decoder

Rivals = Literal["all", "own"]


class OwnWords(nn.Module):
    """The tokens that the robot's targets have had so far, and the end of a text (which must not come early): the softmax of its loss is over these
    alone, so that learning the robot's words does not unlearn all others (asymmetric cross-entropy: Caccia et al. 2022, arXiv 2104.05025). Kept with the weights, for exact resume.

    Args:
        decoder: whose vocabulary, V tokens.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.register_buffer("known_V", torch.zeros(decoder.vocabulary, dtype=torch.bool))
        self.known_V: torch.Tensor
        self.known_V[decoder.tokenizer.eos_token_id] = True

    def forward(self, targets: Sequence[Sequence[int]]) -> torch.Tensor:
        """(V,) bool: tokens known before and those of ``targets``; the latter are remembered in training."""
        now_V = self.known_V.clone()
        now_V[torch.tensor([i for t in targets for i in t], dtype=torch.long, device=now_V.device)] = True
        if self.training:
            self.known_V.copy_(now_V)
        return now_V
