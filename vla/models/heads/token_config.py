"""Options of the token head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from vla.config import Slot
from vla.models.actions.vocabulary import Assignment
from vla.models.decoders.sampling import Sampling
from vla.models.heads.plans import Plan
from vla.models.heads.restricted_vocabulary import LossVocabulary


@dataclass(frozen=True)
class TokenHeadConfig:
    """Options of ``TokenHead``."""

    # Codec of action chunks: uniform (default) or quantile bins, or fast.
    codec: Annotated[dict[str, Any], Slot("codec")] | None = None
    # Token ids of the symbols. integers: the tokenizer's numbers (RT-2-PaLI-X); overwrite: its
    # least used ids (RT-2-PaLM-E); extra: new tokens.
    token_assignment: Assignment = "integers"
    # The number that integers write for the lowest bin: -10 with 21 bins is RT-2's text of
    # Language-Table, "X Y" from -10 to 10. Where a tokenizer writes the minus sign as a token, all
    # negative numbers begin alike, and decoding, which takes the likeliest token, prefers them.
    first_number: int = 0
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
