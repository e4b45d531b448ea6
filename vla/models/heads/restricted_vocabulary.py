"""The tokens that compete in the softmax of the robot's loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from vla.models.decoders.base import Decoder

LossVocabulary = Literal["all", "robot"]


class RestrictedVocabulary(nn.Module):
    """All tokens of the robot's targets so far, and the end-of-text token.

    The softmax of the robot's loss covers these tokens only, so that learning them does not lower
    the probability of all others (asymmetric cross-entropy, arXiv 2104.05025). The set is saved
    with the weights, for exact resume.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.register_buffer("known_V", torch.zeros(decoder.vocabulary, dtype=torch.bool))
        self.known_V: torch.Tensor
        self.known_V[decoder.tokenizer.eos_token_id] = True

    def forward(self, target_ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """(V,) bool: known tokens and those of ``target_ids``, which training adds to the set."""
        ids = torch.tensor([i for t in target_ids for i in t], dtype=torch.long)
        allowed_V = self.known_V.clone()
        allowed_V[ids.to(allowed_V.device)] = True
        if self.training:
            self.known_V.copy_(allowed_V)
        return allowed_V
