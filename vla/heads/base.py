"""What every action head returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass
class HeadLoss:
    """loss_M one value per target item, segment_M the segment it belongs to; unit_KHA the teacher-forced prediction in [-1, 1];
    right_M whether each token of the actions was right (token heads; plans are not counted), else None."""

    loss_M: torch.Tensor
    segment_M: torch.Tensor
    unit_KHA: torch.Tensor
    right_M: torch.Tensor | None = None
