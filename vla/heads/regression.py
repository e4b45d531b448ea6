"""The continuous baseline: learned queries after the prompt, read out by a linear map (OpenVLA-OFT style, parallel over the chunk)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from vla.config import register
from vla.decoders.packing import pack_texts
from vla.decoders.text import encode, robot_prompt
from vla.heads.base import HeadLoss
from vla.schema import Batch


@register("head", "regression")
class RegressionHead(nn.Module):
    """One query a step of the horizon; its last hidden state becomes the step's A numbers.

    Args:
        loss: ``l1`` or ``mse`` in normalised units.
    """

    def __init__(self, loss: Literal["l1", "mse"] = "l1", *, decoder: Any, action_dim: int, horizon: int) -> None:
        super().__init__()
        self.kind, self.action_dim, self.horizon = loss, action_dim, horizon
        self.query_HD = nn.Parameter(torch.randn(horizon, decoder.width) * 0.02)
        self.out = nn.Linear(decoder.width, action_dim)

    def _forward(self, decoder: Any, prefix_BND: torch.Tensor, owner_K: torch.Tensor, instructions: list[str]) -> torch.Tensor:
        """(K, H, A) in [-1, 1]."""
        rows, prefix = prefix_BND.shape[:2]
        pad = decoder.tokenizer.pad_token_id
        prompts = [encode(decoder.tokenizer, robot_prompt(i)) for i in instructions]
        packed = pack_texts([p + [pad] * self.horizon for p in prompts], owner_K, rows, prefix, pad)
        embeds = decoder.embed(packed.ids_BS).to(prefix_BND.dtype)
        lengths = torch.tensor([len(p) for p in prompts], device=owner_K.device)
        column_KH = (packed.starts_K + lengths)[:, None] + torch.arange(self.horizon, device=owner_K.device)
        embeds = embeds.index_put(
            (owner_K[:, None].expand_as(column_KH), column_KH), self.query_HD.to(embeds.dtype).expand(len(prompts), -1, -1)
        )
        hidden = decoder(torch.cat([prefix_BND, embeds], 1), packed.mask_B1LL, packed.positions_BL)[:, prefix:]
        return torch.tanh(self.out(hidden[owner_K[:, None], column_KH])) * 1.05

    def loss(self, decoder: Any, prefix_BND: torch.Tensor, batch: Batch, unit_KHA: torch.Tensor) -> HeadLoss:
        """L1 or MSE over the steps inside the episode, one value a number."""
        assert batch.owner_K is not None and batch.mask_KH is not None
        predicted = self._forward(decoder, prefix_BND, batch.owner_K, batch.instructions)
        error = functional.l1_loss if self.kind == "l1" else functional.mse_loss
        loss_KHA = error(predicted, unit_KHA, reduction="none")
        segment = torch.arange(len(loss_KHA), device=loss_KHA.device)[:, None, None].expand_as(loss_KHA)
        return HeadLoss(loss_KHA[batch.mask_KH].flatten(), segment[batch.mask_KH].flatten(), predicted.detach().clamp(-1, 1))

    def predict(self, decoder: Any, prefix_BND: torch.Tensor, instructions: list[str]) -> torch.Tensor:
        """(B, H, A) in [-1, 1]."""
        owner = torch.arange(len(instructions), device=prefix_BND.device)
        return self._forward(decoder, prefix_BND, owner, instructions).clamp(-1, 1)
