"""Linear and MLP connectors."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from vla.config import register


@register("connector", "mlp")
class MLPConnector(nn.Module):
    """Linear layers with GELU between them.

    Raises:
        ValueError: ``layers`` is below 1.
    """

    def __init__(
        self,
        layers: int = 1,  # linear layers: 1 is a linear map, 2 is LLaVA-1.5's connector
        *,
        in_width: int,
        out_width: int,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"connector.layers={layers}: at least 1")
        sizes = [in_width] + [out_width] * layers
        parts: list[nn.Module] = []
        for a, b in pairwise(sizes):
            parts += [nn.Linear(a, b), nn.GELU()]
        self.net = nn.Sequential(*parts[:-1])

    def forward(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        """Image tokens (B, N, in_width) to (B, N, out_width)."""
        return self.net(tokens_BND)
