"""Plans before actions: their text in training and their constraints in decoding."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from vla.models.decoders.base import Decoder
from vla.models.decoders.constraints import Choice, ForcedTokens, FreeText, TokenConstraint
from vla.models.decoders.text import continuation
from vla.models.prompts import ACTION_WORD, plan_text

# False: act at once. True: write a plan, then act. "auto": the decoder chooses at every step.
Plan = Literal[False, True, "auto"]
_log = logging.getLogger(__name__)


class PlanFormat:
    """The text between prompt and action: plan and ``Action:`` (RT-2, section 4.4).

    Args:
        trained: ``head.plan``. With "auto", steps without a plan have the word ``Action:`` alone.
        limit: maximal length of a generated plan, tokens.
        word: word before a plan; empty: none.
        other_stop: another token id that ends a generated plan.

    Attributes:
        mode: what decoding does; see ``set_mode``.

    Raises:
        ValueError: ``limit`` is below 1, or ``word`` is ``Action:``.
    """

    def __init__(
        self, trained: Plan, limit: int, word: str = "", other_stop: int | None = None
    ) -> None:
        if limit < 1:
            raise ValueError(f"head.plan_tokens={limit}: at least 1")
        if word.strip().startswith(ACTION_WORD):
            raise ValueError(f"head.plan_word={word!r}: {ACTION_WORD!r} ends a plan")
        self.trained: Plan = trained
        self.mode: Plan = trained
        self.limit, self.word, self.other_stop = limit, word, other_stop
        self._cut_is_logged = False

    def check(self, tokenizer: Any) -> None:
        """Check that the tokenizer distinguishes a plan from an action, for ``plan: auto``.

        Raises:
            ValueError: the tokens of ``word`` begin with those of ``Action:``, or the reverse.
        """
        if self.trained != "auto" or not self.word:
            return
        first, second = (
            continuation(tokenizer, f" {self.word}"),
            continuation(tokenizer, plan_text("")),
        )
        if all(a == b for a, b in zip(first, second, strict=False)):
            raise ValueError(
                f"head.plan_word={self.word!r}: this tokenizer does not distinguish it from "
                f"{ACTION_WORD!r}; choose another word, or leave it out"
            )

    def set_mode(self, mode: Plan) -> None:
        """Choose whether decoding writes plans: never, always, or as the decoder chooses.

        Raises:
            ValueError: the head is not trained for it.
        """
        if mode != self.trained and self.trained != "auto":
            raise ValueError(
                f"plan={str(mode).lower()}: this policy is trained with head.plan="
                f"{str(self.trained).lower()}; only one trained with head.plan=auto can do both"
            )
        self.mode = mode

    def ids(self, tokenizer: Any, plan: str) -> list[int]:
        """Token ids between prompt and action; an empty plan leaves the word ``Action:``."""
        word = "" if self.trained == "auto" and not plan.strip() else self.word
        return list(continuation(tokenizer, plan_text(plan.strip(), word)))

    def targets(self, tokenizer: Any, plans: Sequence[str]) -> list[list[int]]:
        """Token ids of the plans of training steps; one log line if a plan exceeds ``limit``."""
        found = [self.ids(tokenizer, plan) for plan in plans]
        longest = max((len(ids) for ids in found), default=0) - len(self.ids(tokenizer, ""))
        if longest > self.limit and not self._cut_is_logged:
            self._cut_is_logged = True
            _log.warning(
                "a plan has %d tokens, but head.plan_tokens=%d: generated plans are cut there",
                longest,
                self.limit,
            )
        return found

    def free_text(self, decoder: Decoder) -> FreeText:
        """The constraint of one plan alone, up to the word ``Action:``."""
        stop, first = continuation(decoder.tokenizer, plan_text(""))[0], None
        if self.trained == "auto" and self.mode is True and not self.word:
            first = _all_but(stop, decoder.vocabulary)
        return FreeText(stop, self.limit, self.other_stop, first)

    def constraints(
        self,
        decoder: Decoder,
        plan: FreeText,
        id_tensor: Callable[[tuple[int, ...]], torch.Tensor],
    ) -> list[TokenConstraint]:
        """Constraints of the text before one action; ``plan`` collects the plan."""
        tokenizer = decoder.tokenizer
        action_word = continuation(tokenizer, plan_text(""))
        act = ForcedTokens(action_word, id_tensor)
        if self.mode is False:
            return [act] if self.trained == "auto" else []
        if not self.word:
            return [plan, act]
        plan_word = continuation(tokenizer, f" {self.word}")
        if self.mode == "auto":
            return [Choice([(plan_word, [plan, act]), (action_word, [])], id_tensor)]
        return [ForcedTokens(plan_word, id_tensor), plan, act]


_OTHERS: dict[tuple[int, int], torch.Tensor] = {}


def _all_but(token: int, vocabulary: int) -> torch.Tensor:
    """The shared tensor of all ids but one."""
    if (token, vocabulary) not in _OTHERS:
        ids = torch.arange(vocabulary)
        _OTHERS[token, vocabulary] = ids[ids != token]
    return _OTHERS[token, vocabulary]
