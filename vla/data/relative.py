"""Actions that are learned as differences to the current state or to the previous action.

All steps of a chunk are differences to the state at its start (UMI, arXiv 2402.10329).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.manifest import Manifest
from vla.data.statistics import column_statistics
from vla.errors import DataError


def last(name: str) -> str:
    """State dimension with the previous value of an action dimension.

    See ``Mapping.append_previous_action``.
    """
    return f"last {name}"


def relative_dims(folder: Path, manifest: Manifest) -> tuple[int, ...]:
    """For each action dimension the index of the state dimension that is subtracted, or -1.

    That is its previous value ("last <dim>"), else the state dimension of the same name. A binary
    or whole-number dimension is a difference to its previous value only, not to a measured state.
    Dimensions that were packed as differences are left alone.

    Raises:
        DataError: no action dimension has a state dimension.
    """
    space, names = manifest.action_space, list(manifest.state_names)
    assert space is not None
    base = {n: n for n in space.names if n in names and n not in manifest.delta} | {
        n: last(n) for n in space.names if last(n) in names
    }
    fixed = {*space.binary, *space.integer}
    usable = [n for n in base if n not in fixed or base[n] == last(n)]
    dims = tuple(names.index(base[n]) if n in usable else -1 for n in space.names)
    if max(dims) < 0:
        raise DataError(
            f"{folder}: data.relative: no action dim has the name of a state dim "
            f"(actions {', '.join(space.names)}; state {', '.join(names) or 'unnamed'}); "
            "leave it out if actions are movements already, or pack with "
            "source.mapping.append_previous_action=true"
        )
    return dims


def reference(state_P: np.ndarray, dims: tuple[int, ...]) -> np.ndarray:
    """(A,) values subtracted from actions in training and added at run time; 0 where -1."""
    return np.array([state_P[p] if p >= 0 else 0.0 for p in dims], np.float32)


def relative_statistics(chunks_NHA: np.ndarray) -> dict[str, Any]:
    """Statistics of (n, H, A) relative action chunks, as ``column_statistics`` of H x A columns.

    Each step has its own statistics because early steps differ least from the state. NaN rows
    (past an episode's end) are ignored.
    """
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "step.npy"
        for step_NA in chunks_NHA.swapaxes(0, 1):
            inside = step_NA[~np.isnan(step_NA).any(1)]
            if len(inside):
                np.save(path, inside)
                found.append(column_statistics([path]))
            else:  # no episode is that long, so this step is never trained
                found.append(found[-1])
    columns = {k: [v for step in found for v in step[k]] for k in found[0] if k != "quantiles"}
    levels = zip(*(step["quantiles"] for step in found), strict=True)
    return {**columns, "quantiles": [[v for step in level for v in step] for level in levels]}
