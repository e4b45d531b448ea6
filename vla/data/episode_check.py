"""The check of every episode before it is packed."""

from __future__ import annotations

import numpy as np

from vla.errors import BadSample
from vla.types import ActionSpace, Episode


def check_episode(episode: Episode, space: ActionSpace, state_dim: int = 0) -> None:
    """Refuse an episode that would harm training.

    Args:
        state_dim: numbers of the state; 0: unknown.

    Raises:
        BadSample: no instruction, no steps, neither camera nor state, a wrong number of action
            or state dimensions, NaN or infinite values, a fraction in a whole-number dimension, or
            a camera with another number of frames than steps.
    """
    where, steps = f"episode {episode.key!r}", len(episode.actions)
    if not any(text.strip() for text in episode.instructions or [episode.instruction]):
        raise BadSample(
            f"{where}: empty instruction; name a text field or give a text: "
            "source.mapping.instruction='push the T'"
        )
    if steps == 0:
        raise BadSample(f"{where}: no steps; drop it from the source")
    if episode.actions.ndim != 2 or episode.actions.shape[1] != space.dim:
        raise BadSample(
            f"{where}: actions have shape {episode.actions.shape}, "
            f"expected ({steps}, {space.dim}); check the action fields"
        )
    state = episode.state
    if state is not None and state.shape != (steps, state_dim or state.shape[-1]):
        raise BadSample(
            f"{where}: the state has shape {state.shape}, expected ({steps}, "
            f"{state_dim or 'P'}); check the state fields"
        )
    for name in ("actions", "state", "rewards"):
        values = getattr(episode, name)
        if values is not None and not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values.reshape(len(values), -1)).all(1))[0, 0])
            raise BadSample(
                f"{where}: {name} has a NaN or infinite value at step {row}; "
                "repair or drop the episode"
            )
    for name in space.integer:
        column = episode.actions[:, space.names.index(name)]
        if (wrong := np.flatnonzero(column % 1)).size:
            raise BadSample(
                f"{where}: {name} has the value {column[wrong[0]]:g} at step {wrong[0]}, expected "
                "a whole number; take it out of mapping.integer, or repair the data"
            )
    for name in ("plans", "instructions"):
        texts = getattr(episode, name)
        if texts and len(texts) != steps:
            raise BadSample(f"{where}: {len(texts)} {name} for {steps} actions; repair the source")
    if not episode.images and episode.state is None:
        raise BadSample(f"{where}: neither camera nor state; map at least one of them")
    for camera, frames in episode.images.items():
        if len(frames) != steps:
            raise BadSample(
                f"{where}: camera {camera!r} has {len(frames)} frames for {steps} actions"
            )
