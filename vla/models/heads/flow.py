"""Flow matching: a network transports noise to a chunk of actions.

Sources: arXiv 2210.02747; pi-0, arXiv 2410.24164.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn

from vla.config import register
from vla.models.heads.base import HeadLoss, KnownActions
from vla.models.heads.guidance import guided_velocity
from vla.models.heads.queries import QueryHead, binary_action, binary_mask, bounded, valid_items
from vla.types import ActionSpace


@register("head", "flow")
class FlowHead(QueryHead):
    """A transformer over the chunk's steps, conditioned on their hidden states, gives the velocity.

    The decoder runs once per chunk. Binary dimensions are numbers (-1 and 1) here, too; the
    predicted number is rounded to the nearer one.

    Raises:
        ValueError: an option is outside its range.
    """

    uses_known_actions: ClassVar[bool] = True

    def __init__(
        self,
        steps: int = 10,  # Euler steps per prediction, at least 1
        layers: int = 2,  # transformer layers of the velocity network
        width: int = 128,  # width of the velocity network, a multiple of 4
        # Standard deviation of the start of a prediction, at least 0. 0: start at the mean, so that
        # equal observations give equal actions. 1: draw noise for every prediction, as pi-0 does.
        # One fixed draw for all predictions shifts all actions to one side (measured).
        noise: float = 0.0,
        parallel: bool = True,  # action queries attend to each other in both directions
        *,
        decoder: Any,
        action_space: ActionSpace,
        horizon: int,
    ) -> None:
        super().__init__(decoder, horizon, parallel)
        if steps < 1 or noise < 0:
            raise ValueError(f"head: steps={steps} must be at least 1 and noise={noise} at least 0")
        self.steps, self.noise, self.dim, self.horizon = steps, noise, action_space.dim, horizon
        self.context = nn.Linear(decoder.width, width)
        self.action_in = nn.Linear(action_space.dim, width)
        self.time = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.position_HD = nn.Parameter(torch.randn(horizon, width) * 0.02)
        self.out = nn.Linear(width, action_space.dim)
        self.register_buffer("frequency", 2.0 ** torch.linspace(0, 8, 32), persistent=False)
        self.frequency: torch.Tensor
        self.register_buffer("binary_A", binary_mask(action_space), persistent=False)
        self.binary_A: torch.Tensor

    def velocity(
        self, x_KHA: torch.Tensor, t_K: torch.Tensor, context_KHD: torch.Tensor
    ) -> torch.Tensor:
        """dx/dt (K, H, A) at time ``t_K``: 0 is noise, 1 is the action."""
        angle = t_K[:, None] * self.frequency * torch.pi
        time = self.time(torch.cat([angle.sin(), angle.cos()], 1))[:, None]
        inputs = self.action_in(x_KHA) + context_KHD + time + self.position_HD
        return self.out(self.transformer(inputs))

    @torch.no_grad()
    def _integrate(
        self,
        context_KHD: torch.Tensor,
        start_KHA: torch.Tensor | None = None,
        known: KnownActions | None = None,
    ) -> torch.Tensor:
        """Actions (K, H, A) in [-1, 1] by Euler's method, guided towards known ones."""
        x = start_KHA
        if x is None:
            x = torch.zeros(len(context_KHD), self.horizon, self.dim, device=context_KHD.device)
            if self.noise:
                x = self.noise * torch.randn_like(x)
        for step in range(self.steps):
            t = torch.full(x.shape[:1], step / self.steps, device=x.device)
            at_t = partial(self.velocity, t_K=t, context_KHD=context_KHD)
            if known is None:
                x = x + at_t(x) / self.steps
            else:
                x = x + guided_velocity(at_t, x, step / self.steps, known) / self.steps
        return bounded(torch.where(self.binary_A, binary_action(x), x))

    def loss_from_states(
        self, states_KHD: torch.Tensor, normalized_actions_KHA: torch.Tensor, mask_KH: torch.Tensor
    ) -> HeadLoss:
        """Squared error of the velocity at a random time, one value per number.

        Noise and actions are joined by a straight line. Predicted actions are computed in
        validation only.
        """
        context = self.context(states_KHD)
        noise = torch.randn_like(normalized_actions_KHA)
        t = torch.rand(len(normalized_actions_KHA), device=normalized_actions_KHA.device)
        share = t[:, None, None]
        x = (1 - share) * noise + share * normalized_actions_KHA
        error = (self.velocity(x, t, context) - (normalized_actions_KHA - noise)) ** 2
        actions = None if self.training else self._integrate(context)
        return HeadLoss(*valid_items(error, mask_KH), actions)

    def actions_from_states(
        self, states_KHD: torch.Tensor, start_KHA: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See ``QueryHead``; the integration begins at ``start_KHA``, if given."""
        return self._integrate(self.context(states_KHD), start_KHA)

    def actions_after(self, states_KHD: torch.Tensor, known: KnownActions) -> torch.Tensor:
        """See ``QueryHead``."""
        return self._integrate(self.context(states_KHD), known=known)
