"""Conventions of the actions that a mapping states."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vla.data.mapping import Mapping
from vla.errors import DataError


def conventions(mapping: Mapping, names: Sequence[str], path: Path) -> dict[str, Any]:
    """Relative and absolute dimensions and the rotation, as keywords of ``ActionSpace``.

    Args:
        mapping: options that are checked against the action dimensions.
        names: of the action dimensions.
        path: of the data set, for messages.

    Raises:
        DataError: two options contradict each other.
    """
    targets = {r.target for r in mapping.rotations}
    moves = {*mapping.relative, *mapping.delta, *mapping.accumulate}
    if both := [n for n in mapping.absolute if n in moves]:
        raise DataError(
            f"{path}: mapping.absolute: {', '.join(both)} also in relative, delta or accumulate, "
            "which are movements; name each dimension once"
        )
    if mapping.rotation and targets - {mapping.rotation}:
        raise DataError(
            f"{path}: mapping.rotation={mapping.rotation}, but mapping.rotations converts to "
            f"{', '.join(sorted(targets))}; leave out mapping.rotation"
        )
    converted = next(iter(targets)) if len(targets) == 1 else ""
    return {
        "relative": tuple(n for n in names if n in moves),
        "absolute": tuple(mapping.absolute),
        "rotation": mapping.rotation or converted,
    }
