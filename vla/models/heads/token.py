"""RT-2's head: actions are text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import torch
from torch import nn

from vla.config import Slot, build, register
from vla.models.actions.constrained_decoding import ActionConstraint, ActionTokenRules
from vla.models.actions.vocabulary import ActionVocabulary, Assignment, VocabularyError
from vla.models.decoders.base import Decoder, Prefix
from vla.models.decoders.generation import ForcedTokens, FreeText, Segments, generate
from vla.models.decoders.sampling import GREEDY, Sampling, token_sampler
from vla.models.decoders.text import text_loss
from vla.models.heads.base import HeadLoss, Prediction
from vla.models.heads.plan_hysteresis import rows_keeping_previous_plan
from vla.models.heads.plans import Plan, PlanFormat
from vla.models.heads.restricted_vocabulary import LossVocabulary, RestrictedVocabulary
from vla.models.heads.teacher_forcing import TeacherForcing
from vla.models.prompts import robot_prompt
from vla.types import ActionSpace, RobotBatch


@dataclass(frozen=True)
class TokenHeadConfig:
    """Options of ``TokenHead``."""

    # Codec of action chunks: uniform (default) or quantile bins, or fast.
    codec: Annotated[dict[str, Any], Slot("codec")] | None = None
    # Token ids of the symbols. integers: the tokenizer's numbers (RT-2-PaLI-X); overwrite: its
    # least used ids (RT-2-PaLM-E); extra: new tokens.
    token_assignment: Assignment = "integers"
    # Generate the step's plan before the action: false, true, or auto: the decoder chooses, and
    # steps of the data with and without a plan teach it when.
    plan: Plan = False
    plan_word: str = ""  # word before a plan, for example "Plan:"
    plan_tokens: int = 8  # maximal length of a generated plan, tokens
    # With plan: true, accept steps without a plan (robots with and without plans); false: they are
    # an error.
    allow_missing_plan: bool = False
    # Softmax of the loss: all tokens, or only tokens of this robot's targets (robot).
    loss_vocabulary: LossVocabulary = "all"
    # The end-of-text token ends a plan, too: for web answers in the format of plans, which no
    # action follows.
    eos_ends_plan: bool = False
    # A new plan must be more likely than the previous one by this many nats; 0: always replan.
    plan_switch_margin: float = 0.0
    # Random choice of plan and action tokens among the allowed ones; null: greedy.
    sampling: Sampling | None = None
    # Ids for token_assignment=overwrite; saving sets them. null: the least used ones.
    ids: list[int] | None = None


@register("head", "token")
class TokenHead(nn.Module):
    """Actions as a string of tokens after the prompt (RT-2, arXiv 2307.15818, section 3.2).

    With ``plan`` the text is ``<plan> Action: 1 128 ...`` (chain of thought, section 4.4). The plan
    is decoded freely, the action from legal tokens only. With ``plan: auto`` the decoder may also
    begin with ``Action:``, and all text before it is the plan.

    Raises:
        VocabularyError: the tokenizer cannot write actions with this ``token_assignment``.
    """

    def __init__(
        self,
        config: TokenHeadConfig,
        *,
        decoder: Any,
        action_dim: int,
        action_space: ActionSpace,
        horizon: int,
        quantiles: torch.Tensor | None = None,
        chunks: torch.Tensor | None = None,
        words: Counter[str] | None = None,
    ) -> None:
        super().__init__()
        eos = decoder.tokenizer.eos_token_id
        self.config, self.plan_switch_margin = config, config.plan_switch_margin
        self.sampling = config.sampling or GREEDY
        plan_end = eos if config.eos_ends_plan else None
        self.plan_format = PlanFormat(config.plan, config.plan_tokens, config.plan_word, plan_end)
        self.plan_format.check(decoder.tokenizer)
        self.codec = build(
            "codec",
            config.codec or {"name": "uniform"},
            "head.codec",
            action_dim=action_dim,
            horizon=horizon,
            quantiles=quantiles,
            chunks=chunks,
        )
        self.vocabulary = ActionVocabulary(
            decoder.tokenizer, self.codec.symbols, config.token_assignment, words, config.ids
        )
        if self.codec.length is None and not self.vocabulary.single:
            raise VocabularyError(
                "head.token_assignment=integers: this codec needs one token per symbol, but the "
                "tokenizer splits numbers; choose extra"
            )
        decoder.fit_vocabulary()
        self.restricted_vocabulary = (
            RestrictedVocabulary(decoder) if config.loss_vocabulary == "robot" else None
        )
        self.token_rules = ActionTokenRules(self.codec, self.vocabulary, eos, action_space)
        self.teacher_forcing = TeacherForcing(self.codec, self.vocabulary)

    def resolved_config(self) -> dict[str, Any]:
        """Options for a saved policy: the ids that were overwritten."""
        if self.vocabulary.token_assignment != "overwrite":
            return {}
        return {"ids": self.vocabulary.single_ids.tolist()}

    def difference_to(self, saved: Mapping[str, Any]) -> str:
        """Why the action tokens of a saved token head have another meaning; empty: they have not.

        ``saved``: its options.
        """
        codec = {"name": "uniform"}
        before, now = saved.get("codec") or codec, self.config.codec or codec
        if before != now:
            return f"the codec was {before}, it is {now} here"
        assignment = saved.get("token_assignment", TokenHeadConfig.token_assignment)
        if assignment != self.config.token_assignment:
            return f"token_assignment was {assignment}, it is {self.config.token_assignment} here"
        ids = self.resolved_config().get("ids")
        return "other token ids are overwritten" if ids and saved.get("ids") != ids else ""

    @property
    def trainable_token_ids(self) -> list[int]:
        """Ids whose embeddings are trained even in a frozen decoder."""
        return self.vocabulary.trainable_token_ids

    def text(self, normalized_actions_HA: torch.Tensor) -> str:
        """The action string of one chunk."""
        steps = [len(normalized_actions_HA)]
        return self.vocabulary.text(self.codec.encode(normalized_actions_HA[None], steps)[0])

    def loss(
        self,
        decoder: Decoder,
        prefix: Prefix,
        batch: RobotBatch,
        normalized_actions_KHA: torch.Tensor,
    ) -> HeadLoss:
        """Next-token loss of plan and action; steps after the episode's end are not written.

        Raises:
            ValueError: a step has no plan with ``plan: true``, unless ``allow_missing_plan``.
        """
        symbols = self.codec.encode(normalized_actions_KHA, batch.mask_KH.sum(1).tolist())
        plan_ids = self._target_plan_ids(decoder, batch.plans)
        action_ids = [self.token_rules.targets(s) for s in symbols]
        target_ids = [p + a for p, a in zip(plan_ids, action_ids, strict=True)]
        restricted = self.restricted_vocabulary
        out = text_loss(
            decoder,
            prefix,
            batch.image_index_K,
            [robot_prompt(i) for i in batch.instructions],
            target_ids,
            allowed_V=None if restricted is None else restricted(target_ids),
        )
        is_action = [
            flag
            for p, a in zip(plan_ids, action_ids, strict=True)
            for flag in [False] * len(p) + [True] * len(a)
        ]
        action_M = torch.tensor(is_action, device=out.loss_M.device)
        actions = self.teacher_forcing(decoder, out.hidden_MD[action_M], symbols, batch.mask_KH)
        return HeadLoss(out.loss_M, out.text_M, actions, out.right_M[action_M])

    def _target_plan_ids(self, decoder: Decoder, plans: list[str]) -> list[list[int]]:
        if self.config.plan is False:
            return [[] for _ in plans]
        required = self.config.plan is True and not self.config.allow_missing_plan
        if required and not all(plans):
            raise ValueError(
                "head.plan=true needs a plan for every step; some of this data has none: "
                "set head.plan to auto or false, or head.allow_missing_plan to true"
            )
        return self.plan_format.targets(decoder.tokenizer, plans)

    def predict(
        self,
        decoder: Decoder,
        prefix: Prefix,
        instructions: list[str],
        previous_plans: Sequence[str] = (),
        row_seeds: Sequence[int] = (),
    ) -> Prediction:
        """Plans and actions, greedy or sampled (``sampling``).

        Args:
            previous_plans: those of the step before (see ``rows_keeping_previous_plan``).
            row_seeds: one seed per row for sampling, see ``TokenSampler``.
        """
        tokenizer, prompts = decoder.tokenizer, [robot_prompt(i) for i in instructions]
        seeds = row_seeds or range(len(prompts))
        texts, free, actions = self._constraints(decoder, len(prompts))
        generate(decoder, prefix, prompts, texts, token_sampler(self.sampling, seeds))
        symbols = [action.symbols for action in actions]
        plans = [tokenizer.decode(plan.tokens).strip() for plan in free]
        rows = rows_keeping_previous_plan(
            decoder,
            prefix,
            prompts,
            previous_plans,
            plans,
            partial(self.plan_format.ids, tokenizer),
            self.plan_switch_margin,
        )
        if rows:
            kept = [previous_plans[r] for r in rows]
            texts, _, actions = self._constraints(decoder, len(rows), kept)
            sampler = token_sampler(self.sampling, [seeds[r] for r in rows])
            generate(decoder, prefix.select(rows), [prompts[r] for r in rows], texts, sampler)
            for row, plan, action in zip(rows, kept, actions, strict=True):
                plans[row], symbols[row] = plan, action.symbols
        return Prediction(self.codec.decode(symbols), plans)

    def _constraints(
        self, decoder: Decoder, count: int, fixed_plans: list[str] | None = None
    ) -> tuple[list[Segments], list[FreeText], list[ActionConstraint]]:
        """(whole text, plan, action) of ``count`` rows; ``fixed_plans`` replace generated ones."""
        ids, texts, free, actions = self.token_rules.ids, [], [], []
        for row in range(count):
            plan, action = self.plan_format.free_text(decoder), ActionConstraint(self.token_rules)
            if fixed_plans is None:
                before = self.plan_format.constraints(decoder, plan, ids)
            else:
                fixed = self.plan_format.ids(decoder.tokenizer, fixed_plans[row])
                before = [ForcedTokens(fixed, ids)]
            texts.append(Segments([*before, action]))
            free.append(plan)
            actions.append(action)
        return texts, free, actions
