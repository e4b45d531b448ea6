"""RT-2's head: actions are text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import torch
from torch import nn

from vla.config import Slot, build, register
from vla.models.actions.constrained_decoding import ActionConstraint, ActionTokenRules
from vla.models.actions.vocabulary import ActionVocabulary, Assignment, VocabularyError
from vla.models.decoders.base import Decoder, Prefix
from vla.models.decoders.generation import (
    ForcedTokens,
    FreeText,
    Segments,
    TokenConstraint,
    generate,
)
from vla.models.decoders.text import continuation, text_loss
from vla.models.heads.base import HeadLoss, Prediction
from vla.models.heads.plan_hysteresis import rows_keeping_previous_plan
from vla.models.heads.restricted_vocabulary import LossVocabulary, RestrictedVocabulary
from vla.models.heads.teacher_forcing import TeacherForcing
from vla.models.prompts import plan_text, robot_prompt
from vla.types import RobotBatch


@dataclass(frozen=True)
class TokenHeadConfig:
    """Options of ``TokenHead``."""

    # Codec of action chunks: uniform (default) or quantile bins, or fast.
    codec: Annotated[dict[str, Any], Slot("codec")] | None = None
    # Token ids of the symbols. integers: the tokenizer's numbers (RT-2-PaLI-X); overwrite: its
    # least used ids (RT-2-PaLM-E); extra: new tokens.
    token_assignment: Assignment = "integers"
    plan: bool = False  # generate the step's plan before the action
    plan_word: str = ""  # word before a plan, for example "Plan:"
    plan_tokens: int = 8  # maximal length of a generated plan, tokens
    # Accept steps without a plan (robots with and without plans); false: they are an error.
    allow_missing_plan: bool = False
    # Softmax of the loss: all tokens, or only tokens of this robot's targets (robot).
    loss_vocabulary: LossVocabulary = "all"
    # The end-of-text token ends a plan, too: for web answers in the format of plans, which no
    # action follows.
    eos_ends_plan: bool = False
    # A new plan must be more likely than the previous one by this many nats; 0: always replan.
    plan_switch_margin: float = 0.0
    # Ids for token_assignment=overwrite; saving sets them. null: the least used ones.
    ids: list[int] | None = None


@register("head", "token")
class TokenHead(nn.Module):
    """Actions as a string of tokens after the prompt (RT-2, arXiv 2307.15818, section 3.2).

    With ``plan`` the text is ``<plan> Action: 1 128 ...`` (chain of thought, section 4.4). The plan
    is decoded freely, the action from legal tokens only.

    Raises:
        VocabularyError: the tokenizer cannot write actions with this ``token_assignment``.
    """

    def __init__(
        self,
        config: TokenHeadConfig,
        *,
        decoder: Any,
        action_dim: int,
        horizon: int,
        quantiles: torch.Tensor | None = None,
        chunks: torch.Tensor | None = None,
        words: Counter[str] | None = None,
    ) -> None:
        super().__init__()
        eos = decoder.tokenizer.eos_token_id
        self.config, self.plan_switch_margin = config, config.plan_switch_margin
        self.other_plan_end = eos if config.eos_ends_plan else None
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
        self.token_rules = ActionTokenRules(self.codec, self.vocabulary, eos)
        self.teacher_forcing = TeacherForcing(self.codec, self.vocabulary)

    def resolved_config(self) -> dict[str, Any]:
        """Options for a saved policy: the ids that were overwritten."""
        if self.vocabulary.token_assignment != "overwrite":
            return {}
        return {"ids": self.vocabulary.single_ids.tolist()}

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
            ValueError: a step has no plan, and ``allow_missing_plan`` is false.
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
        if not self.config.plan:
            return [[] for _ in plans]
        if not self.config.allow_missing_plan and not all(plans):
            raise ValueError(
                "head.plan=true needs a plan for every step; some of this data has none: "
                "set head.plan to false, or head.allow_missing_plan to true"
            )
        return [self.plan_ids(decoder.tokenizer, p) for p in plans]

    def plan_ids(self, tokenizer: Any, plan: str) -> list[int]:
        """Token ids between prompt and action; an empty plan leaves the word "Action:" alone."""
        return list(continuation(tokenizer, plan_text(plan, self.config.plan_word)))

    def predict(
        self,
        decoder: Decoder,
        prefix: Prefix,
        instructions: list[str],
        previous_plans: Sequence[str] = (),
    ) -> Prediction:
        """Plans and actions by greedy decoding.

        ``previous_plans`` are those of the step before (see ``rows_keeping_previous_plan``).
        """
        tokenizer, prompts = decoder.tokenizer, [robot_prompt(i) for i in instructions]
        texts, free, actions = self._constraints(tokenizer, len(prompts))
        generate(decoder, prefix, prompts, texts)
        symbols = [action.symbols for action in actions]
        plans = [tokenizer.decode(plan.tokens).strip() for plan in free]
        rows = rows_keeping_previous_plan(
            decoder,
            prefix,
            prompts,
            previous_plans,
            plans,
            partial(self.plan_ids, tokenizer),
            self.plan_switch_margin,
        )
        if rows:
            kept = [previous_plans[r] for r in rows]
            texts, _, actions = self._constraints(tokenizer, len(rows), kept)
            generate(decoder, prefix.select(rows), [prompts[r] for r in rows], texts)
            for row, plan, action in zip(rows, kept, actions, strict=True):
                plans[row], symbols[row] = plan, action.symbols
        return Prediction(self.codec.decode(symbols), plans)

    def _constraints(
        self, tokenizer: Any, count: int, fixed_plans: list[str] | None = None
    ) -> tuple[list[Segments], list[FreeText], list[ActionConstraint]]:
        """(whole text, plan, action) of ``count`` rows; ``fixed_plans`` replace generated ones."""
        forced = partial(ForcedTokens, id_tensor=self.token_rules.ids)
        action_word = continuation(tokenizer, plan_text(""))
        plan_word = continuation(tokenizer, f" {word}") if (word := self.config.plan_word) else ()
        texts, free, actions = [], [], []
        for row in range(count):
            plan = FreeText(action_word[0], self.config.plan_tokens, self.other_plan_end)
            action = ActionConstraint(self.token_rules)
            before: list[TokenConstraint]
            if fixed_plans is not None:
                before = [forced(self.plan_ids(tokenizer, fixed_plans[row]))]
            else:
                before = [forced(plan_word), plan, forced(action_word)] if self.config.plan else []
            texts.append(Segments([*before, action]))
            free.append(plan)
            actions.append(action)
        return texts, free, actions
