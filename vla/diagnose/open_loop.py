"""Open-loop errors beside trivial predictors, and the signs of the predicted actions."""

from __future__ import annotations

import numpy as np

from vla.diagnose.agreement import bootstrap, correlations
from vla.diagnose.lines import (
    GRIPPER,
    MIN_EPISODES,
    Line,
    by_episode,
    clearly_lower,
    few_episodes,
    listed,
)
from vla.diagnose.windows import Windows

LITTLE = 0.9  # share of the mean action's error above which a policy has hardly learned
OPPOSITE = -0.2  # correlation below which a dimension has the opposite sign


def baselines(
    windows: Windows, predicted_NSA: np.ndarray, pairs: dict[int, int], absolute: list[int]
) -> list[Line]:
    """First predicted actions against the mean action, the previous action and the state.

    Args:
        pairs: action dimension -> state dimension of the same quantity.
        absolute: action dimensions that are absolute targets.
    """
    recorded, state = windows.recorded_NSA[:, 0], windows.state_NSP
    mean = np.concatenate([e.actions for e in windows.episodes]).mean(0)
    previous = np.stack(
        [
            windows.episodes[e].actions[t - 1] if t else mean
            for e, t in zip(windows.episode_N, windows.row_N, strict=True)
        ]
    )
    errors = {
        "policy": _errors(windows, predicted_NSA[:, 0], recorded),
        "mean action": _errors(windows, np.broadcast_to(mean, recorded.shape), recorded),
        "previous action": _errors(windows, previous, recorded),
    }
    if state is not None and absolute:
        held = previous.copy()
        held[:, absolute] = state[:, 0][:, [pairs[k] for k in absolute]]
        errors["present state"] = _errors(windows, held, recorded)
    text = "error in standard deviations: " + ", ".join(
        f"{name} {values.mean():.3f}" for name, values in errors.items()
    )
    a, b = errors["policy"], errors["mean action"]
    if len(a) < MIN_EPISODES:
        return [few_episodes("open-loop error", len(a), text)]
    better = clearly_lower(a, b, 1.0)
    if better and a.mean() < LITTLE * b.mean():
        return [Line("open-loop error", "ok", text)]
    worse = clearly_lower(b, a, 1.0)
    said = "worse" if worse else "hardly better" if better else "no better"
    return [
        Line(
            "open-loop error",
            "fail" if worse else "warn",
            f"the policy is {said} than the mean action; {text}",
            "see the other lines; if they are ok, train longer (vla eval-offline shows dimensions)",
        )
    ]


def _errors(windows: Windows, actions_NA: np.ndarray, recorded_NA: np.ndarray) -> np.ndarray:
    scaled = np.abs(actions_NA - recorded_NA) / windows.scale_A
    return by_episode(scaled[:, windows.moving_A].mean(1), windows.episode_N)


def signs(
    windows: Windows,
    predicted_NSA: np.ndarray,
    target_NSA: np.ndarray,
    only_binary: bool = False,
) -> tuple[list[int], list[Line]]:
    """Dimensions whose predictions move against the recorded actions, and their lines.

    Args:
        predicted_NSA: for the images with which the policy agrees.
        target_NSA: recorded actions as the policy means them.
        only_binary: leave out continuous dimensions, which another fault may explain.
    """
    space = windows.policy.spec.action_space
    if len(windows.episodes) < MIN_EPISODES:
        return [], [few_episodes("action signs", len(windows.episodes))]
    r_BA = correlations(predicted_NSA, target_NSA, windows, bootstrap(windows))
    upper_A = np.quantile(r_BA[1:], 0.99, axis=0)
    grip = [n in space.binary or "grip" in n.lower() for n in space.names]
    judged = [k for k in range(space.dim) if windows.moving_A[k] and (grip[k] or not only_binary)]
    inverted = [k for k in judged if upper_A[k] < OPPOSITE]
    if not inverted:
        shown = ", ".join(f"{space.names[k]} {r_BA[0, k]:.2f}" for k in judged[:8])
        text = f"correlation with the recorded actions: {shown}"
        return [], [Line("action signs", "ok", text)]
    lines = []
    for is_grip in (True, False):
        dims = [k for k in inverted if grip[k] == is_grip]
        if not dims:
            continue
        names = [space.names[k] for k in dims]
        shown = ", ".join(f"{space.names[k]} {r_BA[0, k]:.2f}" for k in dims)
        what = "inverted gripper" if is_grip else "inverted sign"
        lines.append(
            Line(
                "action signs",
                "fail",
                f"{what}: predictions move against the recorded actions (correlation {shown})",
                f"the data and the policy use opposite conventions for {listed(names)}: pack one "
                f"of them with source.mapping.invert=[{', '.join(names)}]"
                if is_grip
                else "check sign and axis of these dimensions in the recording",
                GRIPPER if is_grip else "",
            )
        )
    return inverted, lines


def turned(target_NSA: np.ndarray, dims: list[int]) -> np.ndarray:
    """Recorded actions with some dimensions inverted within their range."""
    out = target_NSA.copy()
    for k in dims:
        values = target_NSA[..., k]
        out[..., k] = np.nanmin(values) + np.nanmax(values) - values
    return out
