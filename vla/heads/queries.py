"""What continuous and parallel heads share: learned queries behind the prompt, one for each step of the chunk."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from vla.decoders.base import Decoder, Prefix
from vla.decoders.text import robot_prompt
from vla.schema import ActionSpace


class ActionQueries(nn.Module):
    """One query a step; in one pass the decoder turns them into what the heads read (OpenVLA-OFT, arXiv 2502.19645).

    Args:
        parallel: queries see each other both ways (OFT), or only those before them.
    """

    def __init__(self, width: int, horizon: int, parallel: bool) -> None:
        super().__init__()
        self.parallel = parallel
        self.query_HD = nn.Parameter(torch.randn(horizon, width) * 0.02)

    def forward(self, decoder: Decoder, prefix: Prefix, owner_K: torch.Tensor, instructions: Sequence[str]) -> torch.Tensor:
        """(K, H, D), a state for every step of every segment's chunk."""
        count, horizon = len(instructions), len(self.query_HD)
        queries = self.query_HD.expand(count, -1, -1)
        none: list[list[int]] = [[]] * count
        hidden = decoder.read(
            prefix, owner_K, [robot_prompt(i) for i in instructions], none, queries_KQD=queries, parallel=self.parallel
        )
        return hidden.reshape(count, horizon + 1, -1)[:, 1:].float()


def binary_mask(space: ActionSpace) -> torch.Tensor:
    """(A,) True for decisions (gripper, terminate), which are classified, never regressed."""
    return torch.tensor([name in space.binary for name in space.names])


def flat(loss_KHA: torch.Tensor, mask_KH: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(loss_M, segment_M) of the steps inside the episode; trailing dims are kept as items."""
    segment = torch.arange(len(loss_KHA), device=loss_KHA.device).reshape(-1, *[1] * (loss_KHA.ndim - 1)).expand_as(loss_KHA)
    return loss_KHA[mask_KH].flatten(), segment[mask_KH].flatten()


def decide(logit: torch.Tensor) -> torch.Tensor:
    """The decision -1 or 1, never between."""
    return torch.where(logit > 0, 1.0, -1.0)
