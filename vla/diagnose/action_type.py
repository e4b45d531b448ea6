"""Are the actions movements or absolute targets, in the data and for the policy?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from vla.diagnose.lines import (
    ACTION_TYPE,
    GRIPPER,
    MIN_EPISODES,
    Line,
    by_episode,
    clearly_lower,
    few_episodes,
    listed,
)
from vla.diagnose.windows import Windows
from vla.doctor.views import EpisodeView

CHECK = "action type"
Kind = Literal["target", "movement", ""]
_CLEAR = 0.6  # correlation with the state above which the kind of an action is known
_MARGIN = 0.25  # by which it must be above the other correlation
_LAGS = 4  # rows after which a state may follow its action


def state_pairs(names: Sequence[str], state_names: Sequence[str], packed: Any) -> dict[int, int]:
    """Action dimension -> state dimension of the same quantity, from names.

    Args:
        packed: option ``mapping.delta`` of the packed data, or an empty mapping.
    """
    known = {n: k for k, n in enumerate(state_names)}
    pairs = {}
    for k, name in enumerate(names):
        plain = re.sub(r"^(delta_|delta |d_|d(?=[xyz]$|roll|pitch|yaw|theta|rx|ry|rz))", "", name)
        options = (dict(packed).get(name), name, plain, plain.replace("rot_", ""))
        found = next((known[o] for o in options if o in known), None)
        if found is not None:
            pairs[k] = found
    return pairs


def paired_by_motion(episodes: Sequence[EpisodeView], binary: Sequence[int]) -> dict[int, int]:
    """The same for data without names: dimension k with dimension k, where their motion agrees."""
    usable = [e for e in episodes if e.state is not None and len(e.actions) > 2 * _LAGS]
    if not usable:
        return {}
    width = min(usable[0].actions.shape[1], usable[0].state.shape[1])  # type: ignore[union-attr]
    return {
        k: k for k in range(width) if k not in binary and max(_kind_scores(usable, k, k)) > _CLEAR
    }


def _centred(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([p - p.mean() for p in parts])


def _correlation(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> float:
    x, y = _centred(a), _centred(b)
    size = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / size) if size > 1e-12 else 0.0


def _kind_scores(episodes: Sequence[EpisodeView], k: int, p: int) -> tuple[float, float]:
    """Correlation of an action with the following state, and with the following movement."""
    level, movement = -1.0, -1.0
    for lag in range(1, _LAGS + 1):
        actions = [e.actions[:-lag, k] for e in episodes]
        states = [e.state[:, p] for e in episodes if e.state is not None]
        level = max(level, _correlation(actions, [s[lag:] for s in states]))
        moved = [s[lag:] - s[lag - 1 : -1] for s in states]
        movement = max(movement, _correlation(actions, moved))
    return level, movement


def kinds(episodes: Sequence[EpisodeView], pairs: dict[int, int]) -> dict[int, Kind]:
    """Action dimension -> kind of its recorded values; empty where neither is clear."""
    usable = [e for e in episodes if e.state is not None and len(e.actions) > 2 * _LAGS]
    found: dict[int, Kind] = {}
    for k, p in pairs.items():
        level, movement = _kind_scores(usable, k, p) if usable else (0.0, 0.0)
        if level > _CLEAR and level > movement + _MARGIN:
            found[k] = "target"
        elif movement > _CLEAR and movement > level + _MARGIN:
            found[k] = "movement"
    return found


def recorded_kinds(
    episodes: Sequence[EpisodeView],
    names: Sequence[str],
    pairs: dict[int, int],
    declared: dict[int, Kind],
    relative: Sequence[int],
) -> list[Line]:
    """Compare the kind of the recorded actions with what mapping and policy declare.

    Args:
        declared: kind by the mapping (``delta``); absent: not declared.
        relative: ``RobotSpec.relative``.
    """
    found, lines = kinds(episodes, pairs), []
    wrong = [names[k] for k, kind in declared.items() if found.get(k, kind) != kind]
    if wrong:
        lines.append(
            Line(
                CHECK,
                "fail",
                f"{listed(wrong)}: packed as movements (mapping.delta), but the values follow the "
                "state like absolute targets",
                "pack the data again and check source.mapping.delta",
                ACTION_TYPE,
            )
        )
    twice = [names[k] for k, p in enumerate(relative) if p >= 0 and found.get(k) == "movement"]
    if twice:
        lines.append(
            Line(
                CHECK,
                "fail",
                f"{listed(twice)}: the policy subtracts the state (data.relative), but the "
                "recorded actions are movements already",
                "train again without this data set in data.relative",
                ACTION_TYPE,
            )
        )
    for k, keys in _mixed(episodes, pairs).items():
        lines.append(
            Line(
                CHECK,
                "fail",
                f"{names[k]}: movements in some episodes, absolute targets in {len(keys)} others "
                f"({listed(keys)})",
                "convert or drop these episodes; pack each kind as a data set of its own",
                ACTION_TYPE,
            )
        )
    return lines


def _mixed(episodes: Sequence[EpisodeView], pairs: dict[int, int]) -> dict[int, list[str]]:
    """Dimension -> episodes whose kind differs from most others; only if there are two or more."""
    out = {}
    for k, p in pairs.items():
        each = {e.key: kinds([e], {k: p}).get(k, "") for e in episodes if e.state is not None}
        targets = [key for key, kind in each.items() if kind == "target"]
        movements = [key for key, kind in each.items() if kind == "movement"]
        fewer = min(targets, movements, key=len)
        if len(fewer) >= max(2, 0.1 * len(each)):
            out[k] = fewer
    return out


def gripper_signs(
    episodes: Sequence[EpisodeView], names: Sequence[str], state_names: Sequence[str]
) -> list[Line]:
    """Gripper actions that move against the state of exactly the same name."""
    usable = [e for e in episodes if e.state is not None and len(e.actions) > 2 * _LAGS]
    lines = []
    for k, name in enumerate(names):
        if "grip" not in name.lower() or name not in state_names or not usable:
            continue
        p = list(state_names).index(name)
        states = [e.state[:, p] for e in usable if e.state is not None]
        actions = [e.actions[:, k] for e in usable]
        by_lag = [
            _correlation([a[:-lag] for a in actions], [s[lag:] for s in states])
            for lag in range(1, _LAGS + 1)
        ]
        strongest = max(by_lag, key=abs)
        if strongest < -_CLEAR:
            lines.append(
                Line(
                    "action signs",
                    "warn",
                    f"{name}: action and measured state move in opposite directions "
                    f"(correlation {strongest:.2f})",
                    f"if open and closed are exchanged, pack with source.mapping.invert=[{name}]",
                    GRIPPER,
                )
            )
    return lines


def typed_target(
    windows: Windows, predicted_NSA: np.ndarray, pairs: dict[int, int]
) -> tuple[np.ndarray, set[int], list[Line]]:
    """Recorded actions as the policy means them, dimensions of another kind, and their lines.

    A policy that was trained on movements predicts ``target - state``, and the reverse.
    """
    recorded, state = windows.recorded_NSA, windows.state_NSP
    target, names = recorded.copy(), windows.policy.spec.action_space.names
    if state is None or not pairs:
        return target, set(), []
    if len(windows.episodes) < MIN_EPISODES:
        return target, set(), [few_episodes(CHECK, len(windows.episodes))]
    found: dict[str, list[str]] = {"movements": [], "absolute targets": []}
    other = set()
    for k, p in pairs.items():
        if not windows.moving_A[k]:
            continue
        options = {
            "movements": recorded[:, :, k] - state[:, :, p],
            "absolute targets": recorded[:, :, k] + state[:, :, p],
        }
        base = _dim_error(predicted_NSA[:, :, k] - recorded[:, :, k], windows)
        errors = {n: _dim_error(predicted_NSA[:, :, k] - v, windows) for n, v in options.items()}
        best = min(errors, key=lambda n: errors[n].mean())
        if clearly_lower(errors[best], base, 0.5, tests=2):
            found[best].append(names[k])
            other.add(k)
            target[:, :, k] = options[best]
    lines = [
        Line(
            CHECK,
            "fail",
            f"{listed(dims)}: the policy predicts {kind}, the data has "
            f"{'absolute targets' if kind == 'movements' else 'movements'}",
            "train and use the policy with actions of the same kind: check source.mapping.delta "
            "of both data sets, and data.relative",
            ACTION_TYPE,
        )
        for kind, dims in found.items()
        if dims
    ]
    return target, other, lines


def _dim_error(difference_NS: np.ndarray, windows: Windows) -> np.ndarray:
    return by_episode(np.nanmean(np.abs(difference_NS), 1), windows.episode_N)
