"""What every action head returns.

An action head is a registered module with ``loss(decoder, prefix, batch, normalized_actions_KHA)``
-> ``HeadLoss`` and ``predict(decoder, prefix, instructions)`` -> ``Prediction``. A head with
``uses_known_actions`` takes ``known`` in ``predict``, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass
class HeadLoss:
    """Loss of one robot's rows of a batch.

    loss_M: one value per target item (a token, a number or a step).
    text_M: index in 0..K-1 of the instruction to which the item belongs.
    normalized_actions_KHA: predicted actions in [-1, 1] (teacher-forced for token heads), or None
        if training does not compute them.
    right_M: bool, True where an action token is predicted correctly; None for heads without tokens.
        Plan tokens are not included.
    """

    loss_M: torch.Tensor
    text_M: torch.Tensor
    normalized_actions_KHA: torch.Tensor | None = None
    right_M: torch.Tensor | None = None


@dataclass
class KnownActions:
    """Actions of earlier chunks from the first step of the new ones on, one chunk for each row.

    normalized_BHA: in [-1, 1]; 0 from step ``count_B[b]`` of row b on.
    frozen_B: first steps of every row that are executed whatever is predicted; 0: none.
    count_B: steps of every row that have a value, at least ``frozen_B``.
    """

    normalized_BHA: torch.Tensor
    frozen_B: list[int]
    count_B: list[int]


@dataclass
class Prediction:
    """Actions in [-1, 1], and the generated plan of every row (empty list: the head has none)."""

    normalized_actions_BHA: torch.Tensor
    plans: list[str] = field(default_factory=list)
