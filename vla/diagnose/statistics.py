"""The statistics in use against those of the data, for each dimension."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from vla.data.manifest import pooled_statistics
from vla.diagnose.lines import GRIPPER, STATISTICS, Line, listed, not_judged, shuffled_weights
from vla.diagnose.subject import Subject
from vla.doctor.views import EpisodeView

CHECK = "statistics"
_EQUAL = 0.01  # relative difference that rounding explains, for the training data itself
_WARN, _FAIL = 1.25, 1.5  # ratio of spreads, for other data
_OFFSET_WARN, _OFFSET_FAIL = 0.5, 1.0  # difference of means in standard deviations, other data
_OUTSIDE = 0.01  # share of rows outside the bounds of the action space that is reported


def statistics(
    subject: Subject, episodes: Sequence[EpisodeView], other_kind: Collection[int] = ()
) -> list[Line]:
    """Compare statistics and bounds of the policy with the rows of the data.

    Args:
        other_kind: action dimensions that are left out, because policy and data have different
            kinds of action there.

    For the training data they must be equal. Other data may differ by the constants above; a
    bootstrap over episodes gives the uncertainty.
    """
    spec, space = subject.policy.spec, subject.policy.spec.action_space
    assert subject.manifest.action_space is not None
    theirs = subject.manifest.action_space.names
    if space.names != theirs and set(space.names) == set(theirs):
        text = f"the policy gives {', '.join(space.names)}; the data has {', '.join(theirs)}"
        return [_line("fail", f"action dims in another order: {text}")]
    lines, judged = [], []
    binary = [n in space.binary for n in space.names]
    kept = [k for k in range(space.dim) if k not in other_kind]
    columns = {"actions": ([e.actions for e in episodes], space.names, binary, kept)}
    states = [e.state for e in episodes if e.state is not None]
    if spec.state_dim and len(states) == len(episodes):
        names = subject.manifest.state_names or tuple(f"state {k}" for k in range(spec.state_dim))
        dims = list(range(spec.state_dim))
        columns["state"] = (states, names, [False] * spec.state_dim, dims)
    for field, (rows, names, is_binary, dims) in columns.items():
        saved = spec.statistics.get(field)
        if not saved:
            continue
        judged.append(field)
        lines += _compare(subject, episodes, field, rows, names, is_binary, dims, saved)
    lines += _relative(subject, episodes) + _outside(subject, episodes, kept)
    if lines:
        return lines
    if not judged:
        return [not_judged(CHECK, "the policy has no statistics (normalise: bounds)")]
    which = "the training data" if subject.is_training_data else "the data"
    return [Line(CHECK, "ok", f"{' and '.join(judged)}: mean and spread of {which} agree")]


def _line(verdict: Any, finding: str, fault: str = STATISTICS) -> Line:
    return Line(
        CHECK,
        verdict,
        finding,
        "use the robot_spec.json that belongs to this robot and data; after a change of the data, "
        "pack and train again",
        fault,
    )


def _compare(
    subject: Subject,
    episodes: Sequence[EpisodeView],
    field: str,
    rows: Sequence[np.ndarray],
    names: Sequence[str],
    binary: Sequence[bool],
    dims: Sequence[int],
    saved: dict[str, Any],
) -> list[Line]:
    """Lines of one field, ``actions`` or ``state``."""
    if len(saved["mean"]) != rows[0].shape[1]:
        text = f"{field}: statistics of {len(saved['mean'])} dims, the data has {rows[0].shape[1]}"
        return [_line("fail", text)]
    exact = subject.is_training_data
    parts = [list(rows), [r for r, e in zip(rows, episodes, strict=True) if e.split != "val"]]
    sources = [figures(np.concatenate(p)) for p in parts if p]
    if exact and len(subject.training) > 1:
        pooled = pooled_statistics(subject.training)[field]
        sources = [{key: np.array(pooled[key]) for key in sources[0]}]
    mean, std = np.array(saved["mean"]), np.array(saved["std"])
    own = min(sources, key=lambda f: _distance(f, mean, std))  # all rows, or the training rows
    draws = _draws(rows)
    serious, slight, exchanged, grippers = [], [], [], []
    for k in dims:
        name = names[k]
        spread = max(own["std"][k], 1e-9)
        ratio, offset = std[k] / spread, (mean[k] - own["mean"][k]) / spread
        if own["std"][k] < 1e-6 and std[k] < 1e-6 and abs(mean[k] - own["mean"][k]) < 1e-4:
            continue
        inner = max(saved["q99"][k] - saved["q01"][k], 1e-9)
        wide = inner / max(own["q99"][k] - own["q01"][k], 1e-9)
        if binary[k] and not exact:
            share, seen = mean[k], own["mean"][k]
            if abs(share - seen) > 0.2 and abs(1 - share - seen) < abs(share - seen) / 2:
                grippers.append(
                    f"{name} (1 in {100 * share:.0f} % of the rows in training, "
                    f"{100 * seen:.0f} % here)"
                )
            continue
        text = (
            f"{name} (spread {ratio:.2f} times, quantile range {wide:.2f} times, "
            f"mean {offset:+.2f} std)"
        )
        if exact:
            keys = [key for key in own if key in saved]
            apart = max(abs(saved[key][k] - own[key][k]) / spread for key in keys)
            if apart > _EQUAL:
                serious.append((k, text))
            continue
        low, high = np.quantile(draws["std"][:, k], [0.01, 0.99])
        near = max(low / max(std[k], 1e-9), std[k] / max(high, 1e-9), 1.0)
        near = max(near, wide, 1 / wide) if near > _WARN else near
        a, b = np.quantile(draws["mean"][:, k], [0.01, 0.99])
        apart = max(a - mean[k], mean[k] - b, 0.0) / spread
        if near > _FAIL or apart > _OFFSET_FAIL:
            serious.append((k, text))
        elif near > _WARN or apart > _OFFSET_WARN:
            slight.append(text)
    if len(serious) > 1:
        exchanged = _exchanged(saved, own, names, [k for k, _ in serious])
    which = "" if exact else ", compared with the data"
    lines = []
    if serious:
        note = f"; {listed(exchanged)}" if exchanged else ""
        text = f"wrong statistics of {field}{which}: {listed([t for _, t in serious])}{note}"
        lines.append(_line("fail", text))
    if slight:
        lines.append(_line("warn", f"statistics of {field} differ{which}: {listed(slight)}"))
    if grippers:
        lines.append(_line("warn", f"inverted gripper? {listed(grippers)}", GRIPPER))
    return lines


def figures(rows_NA: np.ndarray) -> dict[str, np.ndarray]:
    """mean, std, q01, q99, min and max of each column."""
    rows = rows_NA.astype(np.float64)
    q01, q99 = np.quantile(rows, [0.01, 0.99], axis=0)
    moments = {"mean": rows.mean(0), "std": rows.std(0)}
    return moments | {"q01": q01, "q99": q99, "min": rows.min(0), "max": rows.max(0)}


def _distance(own: dict[str, np.ndarray], mean: np.ndarray, std: np.ndarray) -> float:
    return float(np.median(np.abs(own["mean"] - mean) + np.abs(own["std"] - std)))


def _draws(rows: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Bootstrap over episodes: (B, A) means and standard deviations."""
    weights = shuffled_weights(len(rows), 300)
    count = weights @ np.array([len(r) for r in rows], np.float64)
    total = weights @ np.stack([r.sum(0, dtype=np.float64) for r in rows])
    square = weights @ np.stack([(r.astype(np.float64) ** 2).sum(0) for r in rows])
    mean = total / count[:, None]
    return {"mean": mean, "std": np.sqrt(np.maximum(square / count[:, None] - mean**2, 0))}


def _exchanged(
    saved: dict[str, Any], own: dict[str, np.ndarray], names: Sequence[str], wrong: list[int]
) -> list[str]:
    """Texts for dimensions whose statistics are those of another dimension."""
    found = []
    for k in wrong:
        for j in range(len(names)):
            same = [
                abs(saved[f][k] - own[f][j]) <= _EQUAL * max(own["std"][j], 1e-9)
                for f in ("mean", "std")
            ]
            if j != k and all(same):
                found.append(f"{names[k]} has the statistics of {names[j]}")
    return found


def _relative(subject: Subject, episodes: Sequence[EpisodeView]) -> list[Line]:
    """Statistics of the differences to the state, first step of the chunk."""
    spec = subject.policy.spec
    states = [e.state for e in episodes if e.state is not None]
    if not spec.relative or len(states) < len(episodes):
        return []
    dims = np.array(spec.relative)
    rows = np.concatenate(
        [
            e.actions - np.where(dims >= 0, state[:, np.maximum(dims, 0)], 0)
            for e, state in zip(episodes, states, strict=True)
        ]
    )
    own, saved, wrong = figures(rows), spec.statistics["relative"], []
    for k, name in enumerate(spec.action_space.names):
        spread = own["std"][k]
        ratio = saved["std"][k] / max(spread, 1e-9)
        if spread > 1e-6 and not 1 / _FAIL < ratio < _FAIL:
            wrong.append(f"{name} (spread {ratio:.2f} times)")
    text = f"wrong statistics of the differences to the state: {listed(wrong)}"
    return [_line("fail", text)] if wrong else []


def _outside(subject: Subject, episodes: Sequence[EpisodeView], dims: Sequence[int]) -> list[Line]:
    """Rows outside the bounds, to which every action is clipped."""
    space, rows = subject.policy.spec.action_space, np.concatenate([e.actions for e in episodes])
    low, high = np.array(space.low), np.array(space.high)
    room = 1e-4 * (high - low)
    share = ((rows < low - room) | (rows > high + room)).mean(0)
    wrong = [f"{space.names[k]} {100 * share[k]:.0f} %" for k in dims if share[k] > _OUTSIDE]
    text = f"rows outside the bounds of the policy, which clip its actions: {listed(wrong)}"
    return [_line("fail", text)] if wrong else []
