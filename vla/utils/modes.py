"""Training and evaluation mode of modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def evaluation_mode(module: Any) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards every submodule has its mode from before.

    Args:
        module: a ``torch.nn.Module``; other objects are left alone.
    """
    if not getattr(module, "training", False):
        yield
        return
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
