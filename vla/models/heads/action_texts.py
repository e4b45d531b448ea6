"""The constraints of texts with a plan and an action, which a token head generates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vla.models.actions.constrained_decoding import ActionConstraint
from vla.models.decoders.base import Decoder
from vla.models.decoders.constraints import ForcedTokens, FreeText, Segments


def action_texts(
    head: Any,
    decoder: Decoder,
    forced: Sequence[list[int]],
    fixed_plans: Sequence[str] | None = None,
) -> tuple[list[Segments], list[FreeText], list[ActionConstraint]]:
    """(whole text, plan, action) of every row.

    Args:
        head: a ``TokenHead``, whose module imports this one.
        forced: the first symbols of the actions.
        fixed_plans: replace generated ones.
    """
    ids, texts, free, actions = head.token_rules.ids, [], [], []
    for row, symbols in enumerate(forced):
        plan = head.plan_format.free_text(decoder)
        action = ActionConstraint(head.token_rules, symbols)
        if fixed_plans is None:
            before = head.plan_format.constraints(decoder, plan, ids)
        else:
            fixed = head.plan_format.ids(decoder.tokenizer, fixed_plans[row])
            before = [ForcedTokens(fixed, ids)]
        first = ForcedTokens(head.vocabulary.tokens(symbols), ids)
        texts.append(Segments([*before, first, action]))
        free.append(plan)
        actions.append(action)
    return texts, free, actions
