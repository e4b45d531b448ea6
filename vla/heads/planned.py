"""A plan in words, then numbers: chain of thought for heads that write none (as pi-0.5, arXiv 2504.16054, goes from text to flow)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import torch
from torch import nn

from vla.config import Slot, build, register
from vla.decoders.base import Decoder, Prefix, behind_ids, states_of
from vla.decoders.text import FreeText, continuation, robot_prompt, token_loss, write
from vla.heads.base import HeadLoss, Prediction
from vla.heads.holding import staying
from vla.heads.rivals import OwnWords, Rivals
from vla.heads.token import ACTION_WORD
from vla.schema import ActionSpace, RobotBatch


class _Told:
    """A decoder whose texts go on with a plan before their queries. Its states while reading the plans are kept in ``plan_MD``,
    (M, D): of every plan in order those before, between and after its tokens."""

    def __init__(self, decoder: Decoder, plans: Sequence[str]) -> None:
        self.decoder = decoder
        self.thoughts = [written(decoder, p) for p in plans]
        self.plan_MD: torch.Tensor | None = None

    def read(
        self, prefix: Prefix, owner_K: torch.Tensor, prompts: Sequence[str], tails: Sequence[Sequence[int]], sees_K: torch.Tensor | None = None,
        queries_KQD: torch.Tensor | None = None, parallel: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        """See ``Decoder.read``; the tails of heads without words are empty."""
        hidden = self.decoder.read(prefix, owner_K, prompts, self.thoughts, sees_K, queries_KQD, parallel)
        queries = 0 if queries_KQD is None else queries_KQD.shape[1]
        text_M, item_M = states_of([len(t) + queries for t in self.thoughts], hidden.device)
        at_query = behind_ids(self.thoughts, text_M, item_M)
        self.plan_MD = hidden[~at_query]
        # the last state of the plan is also the one before the first query
        return hidden[behind_ids([t[:-1] for t in self.thoughts], text_M, item_M)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.decoder, name)


def after(plan: str) -> str:
    """What stands between the prompt and the action."""
    return f" {plan} {ACTION_WORD}" if plan else f" {ACTION_WORD}"


def written(decoder: Decoder, plan: str) -> list[int]:
    """Token ids of the same."""
    return list(continuation(decoder.tokenizer, after(plan)))


@register("head", "planned")
class PlannedHead(nn.Module):
    """The step's plan is written as ``token`` with ``plan: true`` writes it (RT-2, arXiv 2307.15818, section 4.4); then ``action`` reads prompt and plan.

    In training the true plan is read once, for its own loss and for the action behind it.

    Args:
        action: slot: ``regression``, ``mixture``, ``flow`` or ``classification``. plan_tokens: at most so many. rivals, hold_plan: as ``token``'s.
    """

    def __init__(
        self, action: Annotated[dict[str, Any], Slot("head")], plan_tokens: int = 16, rivals: Rivals = "all", hold_plan: float = 0.0, *, decoder: Any, action_dim: int, action_space: ActionSpace,
        horizon: int,
    ) -> None:  # fmt: skip
        super().__init__()
        if action["name"] in ("token", "planned"):
            raise ValueError(f"head.action={action['name']}: it writes text itself; use head.name=token with head.plan=true")
        self.plan_tokens, self.hold_plan = plan_tokens, hold_plan
        self.own_words = OwnWords(decoder) if rivals == "own" else None
        self.action = build(
            "head", action, "head.action", decoder=decoder, action_dim=action_dim, action_space=action_space, horizon=horizon
        )

    def loss(self, decoder: Decoder, prefix: Prefix, batch: RobotBatch, unit_KHA: torch.Tensor) -> HeadLoss:
        """Next-token loss of the plans, one value a token, and the action's loss as ``action`` counts it.

        Raises:
            ValueError: a step has no plan.
        """
        if not all(batch.plans):
            raise ValueError(
                "head.name=planned needs a plan for every step; some of this data has none: use the head in head.action"
            )
        told = _Told(decoder, batch.plans)
        made = self.action.loss(told, prefix, batch, unit_KHA)
        assert told.plan_MD is not None  # the action was read behind it
        plan = token_loss(decoder, told.plan_MD, told.thoughts, None if self.own_words is None else self.own_words(told.thoughts))
        return HeadLoss(torch.cat([plan.loss_M, made.loss_M]), torch.cat([plan.text_M, made.segment_M]), made.unit_KHA)

    def predict(self, decoder: Decoder, prefix: Prefix, instructions: list[str], before: Sequence[str] = ()) -> Prediction:
        """The plan greedily, then the action behind it. before: as ``token``'s."""
        stop = continuation(decoder.tokenizer, f" {ACTION_WORD}")[0]
        writers = [FreeText(stop, self.plan_tokens) for _ in instructions]
        prompts = [robot_prompt(i) for i in instructions]
        write(decoder, prefix, prompts, writers)
        plans = [decoder.tokenizer.decode(w.tokens).strip() for w in writers]
        for row in staying(decoder, prefix, prompts, before, plans, partial(written, decoder), self.hold_plan):
            plans[row] = before[row]
        return Prediction(self.action.predict(_Told(decoder, plans), prefix, instructions).unit_BHA, plans)
