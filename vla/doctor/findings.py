"""What the doctor says, and what it has seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from vla.doctor.views import View

Severity = Literal["error", "warning", "note"]


@dataclass
class Finding:
    """One complaint: the check's name, how bad, what and the remedy, and whom it concerns (episode keys or dim names)."""

    check: str
    severity: Severity
    text: str
    who: list[str] = field(default_factory=list)


@dataclass
class Summary:
    """What one pass over the episodes keeps: everything small, pictures only as their movement."""

    views: list[View]
    motion: dict[str, tuple[str, np.ndarray]] = field(
        default_factory=dict
    )  # key -> camera, mean difference between successive pictures
