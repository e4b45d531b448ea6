"""The base of heads with learned queries after the prompt, one per action step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from vla.models.decoders.base import Decoder, Prefix, hidden_state_index, is_query_state
from vla.models.heads.base import HeadLoss, KnownActions, Prediction
from vla.models.prompts import robot_prompt
from vla.types import ActionSpace, RobotBatch


@dataclass
class QueryStates:
    """Hidden states of K texts.

    states_KHD: at the query of every action step.
    plan_MD: before, between and after the tokens of every plan, in order of the texts.
    """

    states_KHD: torch.Tensor
    plan_MD: torch.Tensor


class ActionQueries(nn.Module):
    """One learned query per step; one decoder pass turns them into hidden states.

    Source: OpenVLA-OFT, arXiv 2502.19645.

    Args:
        parallel: queries attend to each other in both directions, not only to earlier ones.
    """

    def __init__(self, width: int, horizon: int, parallel: bool) -> None:
        super().__init__()
        self.parallel = parallel
        self.query_HD = nn.Parameter(torch.randn(horizon, width) * 0.02)

    def forward(
        self,
        decoder: Decoder,
        prefix: Prefix,
        image_index_K: torch.Tensor,
        instructions: Sequence[str],
        plan_ids: Sequence[Sequence[int]] | None = None,
    ) -> QueryStates:
        """Hidden states at the queries; ``plan_ids`` are the tokens between prompt and queries."""
        count, horizon = len(instructions), len(self.query_HD)
        plans = [()] * count if plan_ids is None else plan_ids
        hidden = decoder.encode_texts(
            prefix,
            image_index_K,
            [robot_prompt(i) for i in instructions],
            plans,
            queries_KQD=self.query_HD.expand(count, -1, -1),
            parallel=self.parallel,
        )
        text_M, item_M = hidden_state_index([len(p) + horizon for p in plans], hidden.device)
        at_query = is_query_state(plans, text_M, item_M)
        states = hidden[at_query].unflatten(0, (count, horizon)).float()
        return QueryStates(states, hidden[~at_query])


class QueryHead(nn.Module, ABC):
    """Base of heads that compute actions from one hidden state per step.

    Subclasses implement ``loss_from_states`` and ``actions_from_states``. They then work alone and
    after a plan (see ``ChainOfThoughtHead``).
    """

    # True if ``actions_after`` continues known actions; it is called for no other head.
    uses_known_actions: ClassVar[bool] = False

    def __init__(self, decoder: Decoder, horizon: int, parallel: bool) -> None:
        super().__init__()
        self.queries = ActionQueries(decoder.width, horizon, parallel)
        self.norm = nn.LayerNorm(decoder.width)

    @abstractmethod
    def loss_from_states(
        self, states_KHD: torch.Tensor, normalized_actions_KHA: torch.Tensor, mask_KH: torch.Tensor
    ) -> HeadLoss:
        """Loss of the steps inside the episode, where ``mask_KH`` is True."""

    @abstractmethod
    def actions_from_states(self, states_KHD: torch.Tensor) -> torch.Tensor:
        """Actions (K, H, A) in [-1, 1]."""

    def actions_after(self, states_KHD: torch.Tensor, known: KnownActions) -> torch.Tensor:
        """Actions (K, H, A) in [-1, 1] that continue the known ones."""
        raise NotImplementedError

    def read(
        self,
        decoder: Decoder,
        prefix: Prefix,
        image_index_K: torch.Tensor,
        instructions: Sequence[str],
        plan_ids: Sequence[Sequence[int]] | None = None,
    ) -> QueryStates:
        """The normalised hidden states of every step, and the hidden states of the plans."""
        hidden = self.queries(decoder, prefix, image_index_K, instructions, plan_ids)
        return QueryStates(self.norm(hidden.states_KHD), hidden.plan_MD)

    def loss(
        self,
        decoder: Decoder,
        prefix: Prefix,
        batch: RobotBatch,
        normalized_actions_KHA: torch.Tensor,
    ) -> HeadLoss:
        """Loss of a batch."""
        hidden = self.read(decoder, prefix, batch.image_index_K, batch.instructions)
        return self.loss_from_states(hidden.states_KHD, normalized_actions_KHA, batch.mask_KH)

    def predict(
        self,
        decoder: Decoder,
        prefix: Prefix,
        instructions: list[str],
        plan_ids: Sequence[Sequence[int]] | None = None,
        known: KnownActions | None = None,
    ) -> Prediction:
        """Actions (B, H, A) in [-1, 1] for one instruction per row."""
        rows = torch.arange(prefix.batch_size, device=prefix.tokens_BND.device)
        hidden = self.read(decoder, prefix, rows, instructions, plan_ids)
        if known is not None:
            return Prediction(self.actions_after(hidden.states_KHD, known))
        return Prediction(self.actions_from_states(hidden.states_KHD))


def binary_mask(space: ActionSpace) -> torch.Tensor:
    """(A,) True for binary dimensions (gripper, terminate), which are classified."""
    return torch.tensor([name in space.binary for name in space.names])


def valid_items(loss_KHA: torch.Tensor, mask_KH: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(loss_M, text_M) of the steps inside the episode; the loss is (K, H) or (K, H, A)."""
    text = torch.arange(len(loss_KHA), device=loss_KHA.device)
    text = text.reshape(-1, *[1] * (loss_KHA.ndim - 1)).expand_as(loss_KHA)
    return loss_KHA[mask_KH].flatten(), text[mask_KH].flatten()


def binary_action(logit: torch.Tensor) -> torch.Tensor:
    """The binary action -1 or 1; NaN if the logit is NaN."""
    return torch.where(logit.isnan(), logit, torch.where(logit > 0, 1.0, -1.0))


def bounded(actions: torch.Tensor) -> torch.Tensor:
    """Actions clamped to [-1, 1]; NaN where they are not finite, which the policy refuses."""
    return torch.where(actions.isfinite(), actions.clamp(-1, 1), torch.nan)
