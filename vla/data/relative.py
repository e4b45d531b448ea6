"""Actions learned as differences to the robot's present state (every step of a chunk to the same state, as UMI, arXiv 2402.10329) or to its last action."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.manifest import DataError, action_space, statistics


def last(name: str) -> str:
    """What the state calls the action dim's value of one step before, see ``Mapping.last_action``."""
    return f"last {name}"


def relative_dims(folder: Path, manifest: dict[str, Any]) -> tuple[int, ...]:
    """Of every action dim the state dim that is its last value, else the one of the same name; -1 where there is none. A decision is
    a difference (changed or not) to what was last decided only, not to a measured state.

    Raises:
        DataError: no dim has one, so nothing can be a difference.
    """
    space, source = action_space(manifest), manifest["identity"]["source"]
    assert space is not None
    names = list(source.get("state") or ())
    moved = source.get("mapping", {}).get("delta", ())  # packed as differences already
    base = {n: n for n in space.names if n in names and n not in moved} | {n: last(n) for n in space.names if last(n) in names}
    told = [n for n in space.names if n in base and (n not in space.binary or base[n] == last(n))]
    dims = tuple(names.index(base[n]) if n in told else -1 for n in space.names)
    if max(dims) < 0:
        raise DataError(
            f"{folder}: data.relative: no action dim is called like a state dim (actions {', '.join(space.names)}; state "
            f"{', '.join(names) or 'unnamed'}); leave it out where actions are movements already, or pack with source.mapping.last_action=true"
        )
    return dims


def reference(state_P: np.ndarray, dims: tuple[int, ...]) -> np.ndarray:
    """(A,) what is taken from the actions, and put back when the policy acts: the state, or 0."""
    return np.array([state_P[p] if p >= 0 else 0.0 for p in dims], np.float32)


def relative_statistics(chunks_NHA: np.ndarray) -> dict[str, Any]:
    """As of a data set's actions, of the differences in sampled chunks: H x A columns, every step its own, for the first steps differ least; NaN: past an
    episode's end, not counted."""
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "step.npy"
        for step_NA in chunks_NHA.swapaxes(0, 1):
            inside = step_NA[~np.isnan(step_NA).any(1)]
            if len(inside):
                np.save(path, inside)
                found.append(statistics([path]))
            else:  # no episode is that long: never trained, so it goes on like the step before
                found.append(found[-1])
    columns = {k: [v for step in found for v in step[k]] for k in found[0] if k != "quantiles"}
    levels = zip(*(step["quantiles"] for step in found), strict=True)
    return {**columns, "quantiles": [[v for step in level for v in step] for level in levels]}
