"""RT-2's head: actions are text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from vla.config import build, register
from vla.models.actions.constrained_decoding import ActionTokenRules
from vla.models.actions.vocabulary import ActionVocabulary, VocabularyError
from vla.models.decoders.base import Decoder, Prefix
from vla.models.decoders.drafts import Draft
from vla.models.decoders.generation import generate
from vla.models.decoders.sampling import GREEDY, token_sampler
from vla.models.decoders.text import text_loss
from vla.models.heads.action_texts import action_texts
from vla.models.heads.base import HeadLoss, KnownActions, Prediction
from vla.models.heads.plan_hysteresis import rows_keeping_previous_plan
from vla.models.heads.plans import PlanFormat
from vla.models.heads.restricted_vocabulary import RestrictedVocabulary
from vla.models.heads.teacher_forcing import TeacherForcing
from vla.models.heads.token_config import TokenHeadConfig
from vla.models.prompts import robot_prompt
from vla.types import ActionSpace, RobotBatch


@dataclass(frozen=True)
class _Rows:
    """The rows of one prediction; ``drafts`` may be empty."""

    prefix: Prefix
    prompts: list[str]
    seeds: Sequence[int]
    drafts: Sequence[Draft]
    forced: list[list[int]]

    def select(self, rows: list[int]) -> _Rows:
        """These rows only."""
        return _Rows(
            self.prefix.select(rows),
            [self.prompts[r] for r in rows],
            [self.seeds[r] for r in rows],
            [self.drafts[r] for r in rows] if self.drafts else (),
            [self.forced[r] for r in rows],
        )


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
        assignment, first = config.token_assignment, config.first_number
        self.vocabulary = ActionVocabulary(
            decoder.tokenizer, self.codec.symbols, assignment, words, config.ids, first
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
        default = {"codec": {"name": "uniform"}, "token_assignment": "integers", "first_number": 0}
        for option, value in default.items():
            before, now = saved.get(option) or value, getattr(self.config, option) or value
            if before != now:
                return f"the {option} was {before}, it is {now} here"
        ids = self.resolved_config().get("ids")
        return "other token ids are overwritten" if ids and saved.get("ids") != ids else ""

    @property
    def uses_known_actions(self) -> bool:
        """True if the tokens of a chunk begin with those of its first steps; not with FAST."""
        return self.codec.length is not None

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
        drafts: Sequence[Draft] = (),
        known: KnownActions | None = None,
    ) -> Prediction:
        """Plans and actions, greedy or sampled (``sampling``).

        Args:
            previous_plans: those of the step before (see ``rows_keeping_previous_plan``).
            row_seeds: one seed per row for sampling, see ``TokenSampler``.
            drafts: one per row, for speculative decoding; the new texts are written into them.
            known: its frozen steps are the first ones of the chunks.
        """
        tokenizer, prompts = decoder.tokenizer, [robot_prompt(i) for i in instructions]
        forced: list[list[int]] = [[] for _ in prompts]
        if known is not None:
            forced = self.codec.encode(known.normalized_BHA, known.frozen_B)
        rows = _Rows(prefix, prompts, row_seeds or range(len(prompts)), drafts, forced)
        plans, symbols = self._generate(decoder, rows)
        kept = rows_keeping_previous_plan(
            decoder,
            prefix,
            prompts,
            previous_plans,
            plans,
            partial(self.plan_format.ids, tokenizer),
            self.plan_switch_margin,
        )
        if kept:
            _, again = self._generate(decoder, rows.select(kept), [previous_plans[r] for r in kept])
            for row, chosen in zip(kept, again, strict=True):
                plans[row], symbols[row] = previous_plans[row], chosen
        return Prediction(self.codec.decode(symbols), plans)

    def _generate(
        self, decoder: Decoder, rows: _Rows, fixed_plans: list[str] | None = None
    ) -> tuple[list[str], list[list[int]]]:
        """Plan and action symbols of every row."""
        texts, free, actions = action_texts(self, decoder, rows.forced, fixed_plans)
        ids = [self._draft_ids(draft) for draft in rows.drafts]
        sampler = token_sampler(self.sampling, rows.seeds)
        out = generate(decoder, rows.prefix, rows.prompts, texts, sampler, ids)
        for draft, tokens, action in zip(rows.drafts, out.tokens, actions, strict=False):
            before = tokens[: -len(self.token_rules.targets(action.symbols))]
            draft.replace(tokens, out.passes, before, action.symbols)
        plans = [decoder.tokenizer.decode(plan.tokens).strip() for plan in free]
        return plans, [action.symbols for action in actions]

    def _draft_ids(self, draft: Draft) -> list[int]:
        """The last chunk, advanced by the steps since then and filled up with its last action."""
        symbols = draft.symbols
        if symbols and self.codec.length is not None:
            dim = self.token_rules.dim
            left = symbols[draft.steps * dim :]
            symbols = left + symbols[-dim:] * ((len(symbols) - len(left)) // dim)
        return [*draft.before, *(self.token_rules.targets(symbols) if symbols else [])]
