"""The results of an examination."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from vla.doctor.views import EpisodeView

Severity = Literal["error", "warning", "note"]


@dataclass
class Finding:
    """One defect of a data set."""

    check: str  # name of the check
    severity: Severity
    text: str  # the defect and its remedy
    affected: list[str] = field(default_factory=list)  # episode keys or action dimensions


@dataclass
class Summary:
    """The data that one pass over the episodes keeps; of images only the amount of motion."""

    episodes: list[EpisodeView]
    # Episode key -> (T - 1,) mean absolute difference between successive images of one camera.
    image_motion: dict[str, np.ndarray] = field(default_factory=dict)
