"""Exchanged cameras by the look of their images, without the policy.

A policy may act alike with exchanged cameras, because it recognises each by its content.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import numpy as np

from vla.data.manifest import NAME
from vla.diagnose.lines import CAMERAS, MIN_EPISODES, Line, listed
from vla.diagnose.subject import Subject
from vla.doctor.views import EpisodeView, open_dataset

_SIDE, _FRAMES, _EPISODES, _MOST_CAMERAS = 6, 4, 40, 4
_CLEAR = 0.5  # share of the distance that an exchange must leave in an episode


def camera_looks(subject: Subject, found: Sequence[EpisodeView]) -> list[Line]:
    """Compare every episode with the mean look of each camera.

    The reference is the training data, if it is here and other data is examined; otherwise the
    other episodes of the same data.
    """
    spec = subject.policy.spec
    lines = []
    if subject.cameras and spec.cameras != subject.cameras:
        lines.append(
            _swapped(
                f"robot_spec.json has the cameras {', '.join(spec.cameras)}; the training run "
                f"used {', '.join(subject.cameras)}"
            )
        )
    names = [c for c in spec.cameras if all(c in e.cameras for e in found)][:_MOST_CAMERAS]
    if len(names) < 2 or len(found) < MIN_EPISODES:
        return lines
    chosen = found[:: max(1, len(found) // _EPISODES)]
    own = np.stack([_look(e, names) for e in chosen])
    reference, which = own, "the other episodes"
    known = None if subject.is_training_data else _training(subject, names)
    if known is not None:
        reference, which = known, "the training data"
    means_CF = np.median(reference, 0)
    swapped, orders = [], []
    for episode, look_CF in zip(chosen, own, strict=True):
        costs = {
            order: float(((look_CF - means_CF[list(order)]) ** 2).sum())
            for order in permutations(range(len(names)))
        }
        best = min(costs, key=lambda order: costs[order])
        straight = costs[tuple(range(len(names)))]
        if costs[best] < _CLEAR * straight:
            swapped.append(episode.key)
            orders.append(best)
    if len(swapped) >= max(2, 0.05 * len(chosen)):
        order = max(set(orders), key=orders.count)
        text = ", ".join(f"{names[k]} looks like {names[o]}" for k, o in enumerate(order) if k != o)
        lines.append(
            _swapped(
                f"in {len(swapped)} of {len(chosen)} episodes {text} of {which} "
                f"({listed(swapped, 3)})"
            )
        )
    return lines


def _swapped(finding: str) -> Line:
    return Line(
        "cameras",
        "fail",
        f"cameras swapped: {finding}",
        "give each camera the name that it had in training: check source.mapping.cameras of the "
        "data, data.window.cameras of the run, and cameras in robot_spec.json",
        CAMERAS,
    )


def _look(episode: EpisodeView, names: Sequence[str]) -> np.ndarray:
    """(C, F) mean of some frames of every camera, reduced to a few pixels."""
    rows = np.linspace(0, len(episode.actions) - 1, _FRAMES).round().astype(int).tolist()
    looks = []
    for camera in names:
        frames = [reduced(image) for image in episode.images(camera, rows)]
        looks.append(np.mean(frames, 0))
    return np.stack(looks)


def reduced(image: np.ndarray, side: int = _SIDE) -> np.ndarray:
    """(side * side * 3,) means over the cells of a grid."""
    height, width = image.shape[:2]
    ys = np.linspace(0, height, side + 1).astype(int)
    xs = np.linspace(0, width, side + 1).astype(int)
    sums = np.add.reduceat(np.add.reduceat(image.astype(np.float32), ys[:-1], 0), xs[:-1], 1)
    areas = np.diff(ys)[:, None] * np.diff(xs)
    return (sums / areas[..., None]).reshape(-1)


def _training(subject: Subject, names: Sequence[str]) -> np.ndarray | None:
    """(E, C, F) looks of episodes of the training data; None if it is not here."""
    folder: Path | None = next((p for p in subject.training if (p / NAME).is_file()), None)
    if folder is None:
        return None
    looks = []
    for episode in open_dataset(folder).episodes():
        if all(c in episode.cameras for c in names):
            looks.append(_look(episode, names))
        if len(looks) == _EPISODES:
            break
    return np.stack(looks) if looks else None
