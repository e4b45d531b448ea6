"""Which images belong to the recorded actions: exchanged cameras and shifted video."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch

from vla.diagnose.agreement import bootstrap, explains_more, unexplained
from vla.diagnose.lines import CAMERAS, MIN_EPISODES, VIDEO, Line, few_episodes, not_judged
from vla.diagnose.windows import Windows
from vla.utils.text import count

SHIFTS = (-5, -4, -3, -2, -1, 1, 2, 3, 4, 5)  # rows


def cameras(
    windows: Windows, predicted_NSA: np.ndarray, target_NSA: np.ndarray
) -> tuple[torch.Tensor, list[Line]]:
    """Exchange each pair of cameras; the images in the order with which the policy agrees.

    A policy that was trained with two cameras exchanged, or that gets them exchanged, explains
    the recorded actions better after another exchange.
    """
    images, names = windows.images(), windows.policy.spec.cameras
    if len(names) < 2:
        return images, [not_judged("cameras", f"the policy has {count(len(names), 'camera')}")]
    if len(windows.episodes) < MIN_EPISODES:
        return images, [few_episodes("cameras", len(windows.episodes))]
    weights, pairs = bootstrap(windows), list(combinations(range(len(names)), 2))
    recorded_B = unexplained(predicted_NSA, target_NSA, windows, weights)
    best, found = recorded_B, None
    for pair in pairs:
        tried_B = unexplained(
            windows.predict(_exchanged(images, pair)), target_NSA, windows, weights
        )
        if tried_B[0] < best[0]:
            best, found = tried_B, pair
    if found is None or not explains_more(best, recorded_B, tests=len(pairs)):
        others = f", at best {best[0]:.2f} with two exchanged" if found else ""
        text = f"unexplained share of the actions {recorded_B[0]:.2f} as named{others}"
        return images, [Line("cameras", "ok", text)]
    a, b = (names[k] for k in found)
    line = Line(
        "cameras",
        "fail",
        f"cameras {a} and {b} are swapped: exchanging them lowers the unexplained share of the "
        f"actions from {recorded_B[0]:.2f} to {best[0]:.2f}",
        "give each camera the name that it had in training: check source.mapping.cameras of the "
        "data, data.window.cameras of the run, and cameras in robot_spec.json",
        CAMERAS,
    )
    return _exchanged(images, found), [line]


def _exchanged(images: torch.Tensor, pair: tuple[int, int]) -> torch.Tensor:
    order = list(range(images.shape[1]))
    order[pair[0]], order[pair[1]] = pair[1], pair[0]
    return images[:, order]


def video_shift(
    windows: Windows, images: torch.Tensor, predicted_NSA: np.ndarray, target_NSA: np.ndarray
) -> tuple[torch.Tensor, list[Line]]:
    """Give the policy the images of other rows; the images with which it agrees.

    Args:
        images: in the camera order with which the policy agrees.
        predicted_NSA: predictions for ``images``.
    """
    if not windows.policy.spec.cameras or len(windows.episodes) < MIN_EPISODES:
        return images, []
    weights = bootstrap(windows)
    order = _order(windows.images(), images)
    scores = {
        shift: unexplained(
            windows.predict(windows.images(shift)[:, order]), target_NSA, windows, weights
        )
        for shift in SHIFTS
    }
    scores[0] = unexplained(predicted_NSA, target_NSA, windows, weights)
    best = min(scores, key=lambda s: scores[s][0])
    beats = explains_more(scores[best], scores[0], tests=len(SHIFTS))
    # A shift of one row is within the time that a robot needs to react.
    if not beats or (abs(best) == 1 and not explains_more(scores[best], scores[0], 0.6)):
        text = (
            f"the policy agrees with the images of the same row (unexplained {scores[0][0]:.2f}, "
            f"at best {scores[best][0]:.2f} at {best:+d} rows)"
        )
        return images, [Line("video timing", "ok", text)]
    line = Line(
        "video timing",
        "fail",
        f"video shifted: the policy agrees best with images {abs(best)} rows "
        f"{'later' if best > 0 else 'earlier'} than the actions (unexplained share "
        f"{scores[best][0]:.2f} instead of {scores[0][0]:.2f})",
        "align video and table of the data that is shifted (this one, or the training data), "
        "pack and train again",
        VIDEO,
    )
    return windows.images(best)[:, order], [line]


def _order(before: torch.Tensor, after: torch.Tensor) -> list[int]:
    """The camera order that turns ``before`` into ``after``."""
    count = before.shape[1]
    used: list[int] = []
    for v in range(count):
        same = [u for u in range(count) if u not in used and torch.equal(before[:, u], after[:, v])]
        used.append(same[0])
    return used
