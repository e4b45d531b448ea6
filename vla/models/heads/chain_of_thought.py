"""Chain of thought for continuous heads: a plan, then actions (pi-0.5, arXiv 2504.16054)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import nn

from vla.config import Slot, build, register, registered
from vla.models.decoders.base import Decoder, Prefix
from vla.models.decoders.drafts import Draft
from vla.models.decoders.generation import generate
from vla.models.decoders.sampling import GREEDY, Sampling, token_sampler
from vla.models.decoders.text import token_loss
from vla.models.heads.base import HeadLoss, KnownActions, Prediction
from vla.models.heads.plan_hysteresis import rows_keeping_previous_plan
from vla.models.heads.plans import PlanFormat
from vla.models.heads.queries import QueryHead
from vla.models.heads.restricted_vocabulary import LossVocabulary, RestrictedVocabulary
from vla.models.prompts import robot_prompt
from vla.types import ActionSpace, RobotBatch


@register("head", "chain_of_thought")
class ChainOfThoughtHead(nn.Module):
    """Generates the plan of the step, then another head computes the action from prompt and plan.

    The plan has the format of the ``token`` head with ``plan: true`` (RT-2, arXiv 2307.15818,
    section 4.4). In training one decoder pass over the true plan serves both losses.

    Raises:
        ValueError: the inner head generates text itself.
    """

    # Options of a small instance, for vla.testing.
    example: ClassVar[dict[str, Any]] = {"action": {"name": "regression"}}

    def __init__(
        self,
        # Head of the action: regression, mixture, flow or classification.
        action: Annotated[dict[str, Any], Slot("head")],
        plan_tokens: int = 16,  # maximal length of a generated plan, tokens
        # Softmax of the plan's loss: all tokens, or only tokens of this robot's plans (robot).
        loss_vocabulary: LossVocabulary = "all",
        # A new plan must be more likely than the previous one by this many nats; 0: always replan.
        plan_switch_margin: float = 0.0,
        # true: a plan at every step; auto: the decoder chooses to write a plan or to act at once,
        # and steps of the data with and without a plan teach it when.
        plan: Literal[True, "auto"] = True,
        # Random choice of plan tokens; null: greedy.
        sampling: Sampling | None = None,
        *,
        decoder: Any,
        action_dim: int,
        action_space: ActionSpace,
        horizon: int,
    ) -> None:
        super().__init__()
        if not issubclass(registered("head")[action["name"]], QueryHead):
            raise ValueError(
                f"head.action={action['name']}: this head generates text itself; "
                "use head.name=token with head.plan=true"
            )
        self.plan_format = PlanFormat(plan, plan_tokens)
        self.plan_switch_margin = plan_switch_margin
        self.sampling = sampling or GREEDY
        self.restricted_vocabulary = (
            RestrictedVocabulary(decoder) if loss_vocabulary == "robot" else None
        )
        self.action: QueryHead = build(
            "head",
            action,
            "head.action",
            decoder=decoder,
            action_dim=action_dim,
            action_space=action_space,
            horizon=horizon,
        )

    @property
    def uses_known_actions(self) -> bool:
        """True if the inner head continues known actions."""
        return self.action.uses_known_actions

    def loss(
        self,
        decoder: Decoder,
        prefix: Prefix,
        batch: RobotBatch,
        normalized_actions_KHA: torch.Tensor,
    ) -> HeadLoss:
        """Next-token loss of the plans, one value per token, then the loss of the inner head.

        Raises:
            ValueError: a step has no plan, with ``plan: true``.
        """
        if self.plan_format.trained is True and not all(batch.plans):
            raise ValueError(
                "head.name=chain_of_thought needs a plan for every step; some of this data has "
                "none: set head.plan to auto, or use the head of head.action alone"
            )
        plan_ids = self.plan_format.targets(decoder.tokenizer, batch.plans)
        hidden = self.action.read(
            decoder, prefix, batch.image_index_K, batch.instructions, plan_ids
        )
        action = self.action.loss_from_states(
            hidden.states_KHD, normalized_actions_KHA, batch.mask_KH
        )
        restricted = self.restricted_vocabulary
        allowed_V = None if restricted is None else restricted(plan_ids)
        plan = token_loss(decoder, hidden.plan_MD, plan_ids, allowed_V)
        return HeadLoss(
            torch.cat([plan.loss_M, action.loss_M]),
            torch.cat([plan.text_M, action.text_M]),
            action.normalized_actions_KHA,
        )

    def predict(
        self,
        decoder: Decoder,
        prefix: Prefix,
        instructions: list[str],
        previous_plans: Sequence[str] = (),
        row_seeds: Sequence[int] = (),
        drafts: Sequence[Draft] = (),
        known: KnownActions | None = None,
    ) -> Prediction:
        """Plans, greedy or sampled (``sampling``), then actions, which continue ``known``.

        Args:
            previous_plans: those of the step before (see ``rows_keeping_previous_plan``).
            row_seeds: one seed per row for sampling, see ``TokenSampler``.
            drafts: one per row, for speculative decoding; the new plans are written into them.
        """
        tokenizer, prompts = decoder.tokenizer, [robot_prompt(i) for i in instructions]
        plans = [""] * len(prompts)
        if self.plan_format.mode is not False:
            texts = [self.plan_format.free_text(decoder) for _ in prompts]
            sampler = token_sampler(self.sampling, row_seeds or range(len(prompts)))
            out = generate(decoder, prefix, prompts, texts, sampler, [d.before for d in drafts])
            for draft, ids in zip(drafts, out.tokens, strict=False):
                draft.replace(ids, out.passes, ids, [])
            plans = [tokenizer.decode(text.tokens).strip() for text in texts]
        make_ids = partial(self.plan_format.ids, tokenizer)
        for row in rows_keeping_previous_plan(
            decoder, prefix, prompts, previous_plans, plans, make_ids, self.plan_switch_margin
        ):
            plans[row] = previous_plans[row]
        plan_ids = [make_ids(plan) for plan in plans]
        action = self.action.predict(decoder, prefix, instructions, plan_ids, known)
        return Prediction(action.normalized_actions_BHA, plans)
