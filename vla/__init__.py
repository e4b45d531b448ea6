"""vla: Vision-Language-Action policies on PyTorch Lightning, from robot data to rollouts."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vla.benchmarks.base import Benchmark
    from vla.config import register
    from vla.inference.runner import PolicyRunner
    from vla.policies.base import BasePolicy as Policy
    from vla.policies.checkpoint import load_policy
    from vla.types import ActionSpace, Episode

# GNU OpenMP reads this when torch is imported: idle threads release their core after a short spin.
# On two cores shared with another busy process, training then keeps half of its speed instead of a
# third. On an idle machine the speed does not change.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"
__all__ = [
    "ActionSpace",
    "Benchmark",
    "Episode",
    "Policy",
    "PolicyRunner",
    "__version__",
    "load_policy",
    "register",
]

# Name -> module and attribute. They are imported at first use, so that ``import vla`` stays quick.
_LAZY = {
    "ActionSpace": ("vla.types", "ActionSpace"),
    "Benchmark": ("vla.benchmarks.base", "Benchmark"),
    "Episode": ("vla.types", "Episode"),
    "Policy": ("vla.policies.base", "BasePolicy"),
    "PolicyRunner": ("vla.inference.runner", "PolicyRunner"),
    "load_policy": ("vla.policies.checkpoint", "load_policy"),
    "register": ("vla.config", "register"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'vla' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
