"""Absolute targets learned as differences to the robot's present state (every step of a chunk to the same state, as UMI, arXiv 2402.10329)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.manifest import DataError, action_space, statistics


def relative_dims(folder: Path, manifest: dict[str, Any]) -> tuple[int, ...]:
    """Of every action dim the state dim of the same name, -1 where there is none or the dim is a decision.

    Raises:
        DataError: no dim has one, so nothing can be a difference.
    """
    space, source = action_space(manifest), manifest["identity"]["source"]
    assert space is not None
    names = list(source.get("state") or ())
    moved = source.get("mapping", {}).get("delta", ())  # packed as differences already
    dims = tuple(names.index(n) if n in names and n not in (*space.binary, *moved) else -1 for n in space.names)
    if max(dims) < 0:
        raise DataError(
            f"{folder}: data.relative: no action dim is called like a state dim (actions {', '.join(space.names)}; state "
            f"{', '.join(names) or 'unnamed'}); leave it out where actions are movements already"
        )
    return dims


def reference(state_P: np.ndarray, dims: tuple[int, ...]) -> np.ndarray:
    """(A,) what is taken from the actions, and put back when the policy acts: the state, or 0."""
    return np.array([state_P[p] if p >= 0 else 0.0 for p in dims], np.float32)


def relative_statistics(chunks_NHA: np.ndarray) -> dict[str, Any]:
    """As of a data set's actions, of the differences in sampled chunks."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chunks.npy"
        np.save(path, chunks_NHA.reshape(-1, chunks_NHA.shape[-1]))
        return statistics([path])
