"""Flow matching (arXiv 2210.02747; pi-0, arXiv 2410.24164): a small network carries noise to a chunk of actions."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vla.config import register
from vla.decoders.base import Decoder, Prefix
from vla.heads.base import HeadLoss, Prediction
from vla.heads.queries import ActionQueries, binary_mask, decide, flat
from vla.schema import ActionSpace, RobotBatch


@register("head", "flow")
class FlowHead(nn.Module):
    """The decoder is read once a chunk; a transformer over the chunk's steps, told the state of each step's query, gives the velocity.

    Decisions are numbers here too (-1 and 1), rounded to the nearer one when acting.

    Args:
        steps: of Euler's method when acting. layers, width: of the velocity network. noise: standard deviation of what acting starts from. 0 is
        the mean of the noise: the same observation always gives the same action; 1 draws anew for every action, as pi-0 does. (The same draw for
        every action pushes them all to one side: experiments/heads, LOG.md.) parallel: see ``ActionQueries``.
    """

    def __init__(
        self, steps: int = 10, layers: int = 2, width: int = 128, noise: float = 0.0, parallel: bool = True, *, decoder: Any, action_space: ActionSpace,
        horizon: int,
    ) -> None:  # fmt: skip
        super().__init__()
        if steps < 1 or noise < 0:
            raise ValueError(f"head: steps={steps} must be at least 1 and noise={noise} at least 0")
        self.steps, self.noise, self.dim, self.horizon = steps, noise, action_space.dim, horizon
        self.queries = ActionQueries(decoder.width, horizon, parallel)
        self.norm = nn.LayerNorm(decoder.width)
        self.context = nn.Linear(decoder.width, width)
        self.noisy = nn.Linear(action_space.dim, width)
        self.time = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
        self.mix = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.place_HD = nn.Parameter(torch.randn(horizon, width) * 0.02)
        self.out = nn.Linear(width, action_space.dim)
        self.register_buffer("frequency", 2.0 ** torch.linspace(0, 8, 32), persistent=False)
        self.frequency: torch.Tensor
        self.register_buffer("binary_A", binary_mask(action_space), persistent=False)
        self.binary_A: torch.Tensor

    def velocity(self, x_KHA: torch.Tensor, t_K: torch.Tensor, context_KHD: torch.Tensor) -> torch.Tensor:
        """d x / d t (K, H, A) at time ``t`` (0: noise, 1: actions)."""
        angle = t_K[:, None] * self.frequency * torch.pi
        time = self.time(torch.cat([angle.sin(), angle.cos()], 1))[:, None]
        return self.out(self.mix(self.noisy(x_KHA) + context_KHD + time + self.place_HD))

    @torch.no_grad()
    def _act(self, context_KHD: torch.Tensor) -> torch.Tensor:
        """(K, H, A) in [-1, 1]: along the velocity from what acting starts from."""
        x = torch.zeros(len(context_KHD), self.horizon, self.dim, device=context_KHD.device)
        if self.noise:
            x = self.noise * torch.randn_like(x)
        for step in range(self.steps):
            t = torch.full((len(x),), step / self.steps, device=x.device)
            x = x + self.velocity(x, t, context_KHD) / self.steps
        return torch.where(self.binary_A, decide(x), x).clamp(-1, 1)

    def loss(self, decoder: Decoder, prefix: Prefix, batch: RobotBatch, unit_KHA: torch.Tensor) -> HeadLoss:
        """Squared error of the velocity at a random time on the straight line from noise to the chunk, one value a number; the actions
        that would be taken are worked out on held-out data only."""
        context = self.context(self.norm(self.queries(decoder, prefix, batch.owner_K, batch.instructions)))
        noise, t = torch.randn_like(unit_KHA), torch.rand(len(unit_KHA), device=unit_KHA.device)
        at = t[:, None, None]
        x = (1 - at) * noise + at * unit_KHA
        velocity = self.velocity(x, t, context)
        error = (velocity - (unit_KHA - noise)) ** 2
        return HeadLoss(*flat(error, batch.mask_KH), None if self.training else self._act(context))

    def predict(self, decoder: Decoder, prefix: Prefix, instructions: list[str]) -> Prediction:
        """(B, H, A) in [-1, 1]."""
        owner = torch.arange(len(instructions), device=self.frequency.device)
        context = self.context(self.norm(self.queries(decoder, prefix, owner, instructions)))
        return Prediction(self._act(context))
