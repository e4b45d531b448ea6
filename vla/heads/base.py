"""What every action head returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass
class HeadLoss:
    """loss_M one value per target item, segment_M the segment it belongs to; unit_KHA the prediction in [-1, 1] made on the way (teacher-forced
    for token heads), or None where the training pass makes none; right_M whether each token of the actions was right (plans are not
    counted), None for heads without tokens."""

    loss_M: torch.Tensor
    segment_M: torch.Tensor
    unit_KHA: torch.Tensor | None = None
    right_M: torch.Tensor | None = None


@dataclass
class Prediction:
    """unit_BHA in [-1, 1]; plans: what was written before each action (B texts), or none."""

    unit_BHA: torch.Tensor
    plans: list[str] = field(default_factory=list)
