"""RT-2's head: actions are text."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vla.actions.bins import UniformBins
from vla.actions.vocabulary import ActionVocabulary, Assignment
from vla.config import register
from vla.decoders.text import encode, generate, robot_prompt, text_loss
from vla.heads.base import HeadLoss
from vla.schema import Batch

ACTION_WORD = "Action:"


@register("head", "token")
class TokenHead(nn.Module):
    """Actions as a string of H x A tokens after the prompt (arXiv 2307.15818, section 3.2).

    Args:
        bins: uniform bins per dim. assign: which token ids mean the bins, see ``ActionVocabulary``.
        plan: write the step's plan before the action (chain of thought, section 4.4): ``<plan> Action: 1 128 …``; the plan is decoded
        freely, the action from legal tokens only. plan_tokens: at most so many for the plan.
    """

    def __init__(
        self,
        bins: int = 256,
        assign: Assignment = "integers",
        plan: bool = False,
        plan_tokens: int = 8,
        *,
        decoder: Any,
        action_dim: int,
        horizon: int,
    ) -> None:
        super().__init__()
        self.plan, self.plan_tokens = plan, plan_tokens
        self.last_plans: list[str] = []  # what the last ``predict`` wrote before its actions, one a row
        self.bins, self.action_dim, self.horizon = UniformBins(bins), action_dim, horizon
        self.vocabulary = ActionVocabulary(decoder.tokenizer, bins, assign)
        decoder.fit_vocabulary()

    def loss(self, decoder: Any, prefix_BND: torch.Tensor, batch: Batch, unit_KHA: torch.Tensor) -> HeadLoss:
        """Next-token loss of the action strings; steps past an episode's end are left out of the string."""
        assert batch.owner_K is not None and batch.mask_KH is not None
        tokens_KHA = self.vocabulary.tokens(self.bins.encode(unit_KHA))
        valid = batch.mask_KH.sum(1).tolist()
        thoughts = self._thoughts(decoder, batch.plans)
        targets = [t + row[:n].flatten().tolist() for t, row, n in zip(thoughts, tokens_KHA, valid, strict=True)]
        prompts = [encode(decoder.tokenizer, robot_prompt(i)) for i in batch.instructions]
        out = text_loss(decoder, prefix_BND, batch.owner_K, prompts, targets)
        legal = self.vocabulary.ids.to(prefix_BND.device)
        # the action's share of every target string, behind its plan
        flags = [f for t, whole in zip(thoughts, targets, strict=True) for f in [False] * len(t) + [True] * (len(whole) - len(t))]
        action_M = torch.tensor(flags, device=legal.device)
        with torch.no_grad():
            value_M = self.bins.decode(decoder.logits(out.hidden_MD[action_M], legal).argmax(-1))
            predicted = torch.zeros_like(unit_KHA)
            predicted[batch.mask_KH] = value_M.reshape(-1, self.action_dim)
        return HeadLoss(out.loss_M, out.text_M, predicted, out.right_M[action_M])

    def _thoughts(self, decoder: Any, plans: list[str]) -> list[list[int]]:
        """Token ids that stand before each action: nothing, or the plan and the word "Action:"."""
        if not self.plan:
            return [[] for _ in plans]
        if not all(plans):
            raise ValueError("head.plan=true needs a plan for every step; this data has none: set head.plan to false")
        return [encode(decoder.tokenizer, f" {p} {ACTION_WORD}") for p in plans]

    def write_plans(self, decoder: Any, prefix_BND: torch.Tensor, prompts: list[list[int]]) -> list[list[int]]:
        """Free decoding up to the word "Action:": the ids of one plan a row (possibly none), and that word behind it."""
        tok = decoder.tokenizer
        word = encode(tok, f" {ACTION_WORD}")
        stop = word[0]
        written = generate(decoder, prefix_BND, prompts, self.plan_tokens, stop=stop).tolist()
        plans = [row[: row.index(stop)] if stop in row else row for row in written]
        self.last_plans = [tok.decode(plan).strip() for plan in plans]
        return [plan + word for plan in plans]

    def predict(self, decoder: Any, prefix_BND: torch.Tensor, instructions: list[str]) -> torch.Tensor:
        """Greedy, legal tokens only: (B, H, A) in [-1, 1]."""
        prompts = [encode(decoder.tokenizer, robot_prompt(i)) for i in instructions]
        if self.plan:
            prompts = [p + t for p, t in zip(prompts, self.write_plans(decoder, prefix_BND, prompts), strict=True)]
        ids = generate(decoder, prefix_BND, prompts, self.horizon * self.action_dim, self.vocabulary.ids.to(prefix_BND.device))
        return self.bins.decode(self.vocabulary.bins_of(ids)).reshape(-1, self.horizon, self.action_dim)

    def text(self, unit_HA: torch.Tensor) -> str:
        """The action string of one prediction."""
        return self.vocabulary.text(self.bins.encode(unit_HA).flatten())
