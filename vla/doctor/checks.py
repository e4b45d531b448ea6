"""What can be wrong with robot data, one function a complaint. All numbers a person may want to change stand at the top."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np

from vla.doctor.findings import Finding, Summary
from vla.doctor.signals import lag, pictures, timing
from vla.doctor.views import Patient, View

NEAR_CONSTANT = 1e-3  # q99 - q01 below this share of the whole range
CLIPPED_SHARE = 0.02  # of rows at a dim's very end
DECISION_SHARE = 0.6  # of rows at the ends: not clipped, but a decision
IDLE_SHARE = 0.3  # of rows in which neither action nor state moves
BALANCE = 20.0  # times as many episodes of the commonest instruction as of the median one
LOOKED_AT = 40  # episodes whose pictures are decoded


def examine(patient: Patient) -> tuple[Summary, list[Finding]]:
    """All checks over all episodes.

    Raises:
        ValueError: there is not one episode that can be read.
    """
    summary = Summary([])
    for view in patient.views():
        if len(summary.motion) < LOOKED_AT and view.cameras and len(view.actions) >= 8:
            camera = view.cameras[0]
            try:
                small = np.stack(
                    [
                        p[:: max(1, p.shape[0] // 32), :: max(1, p.shape[1] // 32)].mean(2)
                        for p in view.pictures(camera, range(len(view.actions)))
                    ]
                )
            except ValueError as error:
                patient.broken[view.key] = str(error)
                continue
            summary.motion[view.key] = (camera, np.abs(np.diff(small, axis=0)).mean((1, 2)))
        summary.views.append(view)
    if not summary.views:
        raise ValueError(
            f"{patient.name}: not one episode can be read; first reason: {next(iter(patient.broken.values()), 'none given')}"
        )
    findings = [Finding("broken episodes", "error", text, [key]) for key, text in patient.broken.items()]
    for check in (numbers, dims, idle, timing, lag, duplicates, words, leakage):
        findings += check(patient, summary.views)
    findings += pictures(patient, summary)
    order = {"error": 0, "warning": 1, "note": 2}
    return summary, sorted(findings, key=lambda f: order[f.severity])


def numbers(patient: Patient, views: list[View]) -> Iterator[Finding]:
    """Values that are no numbers."""
    bad = [v.key for v in views if not np.isfinite(v.actions).all() or (v.state is not None and not np.isfinite(v.state).all())]
    if bad:
        yield Finding("not a number", "error", f"{len(bad)} episodes have NaN or infinite values; repair or drop them", bad)


def dims(patient: Patient, views: list[View]) -> Iterator[Finding]:
    """Dead and near-constant dims, and values piled up at a dim's ends."""
    pooled = np.concatenate([v.actions for v in views])
    pooled = pooled[np.isfinite(pooled).all(1)]
    low, high = pooled.min(0), pooled.max(0)
    q01, q99 = np.quantile(pooled, [0.01, 0.99], axis=0)
    dead = [n for n, a, b in zip(patient.names, low, high, strict=True) if b - a == 0]
    if dead:
        yield Finding(
            "dead dim", "warning", f"{', '.join(dead)}: never changes; leave it out of mapping.action, or check the recording", dead
        )
    free = [n not in dead and n not in patient.binary for n in patient.names]
    near = [
        n
        for n, f, a, b, p, q in zip(patient.names, free, low, high, q01, q99, strict=True)
        if f and q - p < NEAR_CONSTANT * (b - a)
    ]
    if near:
        yield Finding(
            "near-constant dim",
            "warning",
            f"{', '.join(near)}: 98 % of rows lie in a thousandth of the range, so q01 and q99 are no scale; single outliers? use min_max or clean them",
            near,
        )
    at_end = ((pooled == low) | (pooled == high)).mean(0)
    known = [n for n, f in zip(patient.names, free, strict=True) if f and n not in near]
    share = dict(zip(patient.names, at_end, strict=True))
    decisions = [n for n in known if share[n] > DECISION_SHARE]  # both ends together: a gripper, not a clipped dim
    if decisions:
        yield Finding(
            "decision?",
            "note",
            f"{', '.join(decisions)}: nearly always at one end; if it is a decision, say so: mapping.binary",
            decisions,
        )
    piled = [n for n in known if CLIPPED_SHARE < share[n] <= DECISION_SHARE]
    if piled:
        shares = ", ".join(f"{n} {100 * share[n]:.0f} %" for n in piled)
        yield Finding(
            "clipped", "warning", f"rows at the very end of their range: {shares}; the recorder or controller clips there", piled
        )


def idle(patient: Patient, views: list[View]) -> Iterator[Finding]:
    """Rows in which nothing happens."""
    still = []
    scale = np.concatenate(
        [np.abs(np.diff(v.state if v.state is not None else v.actions, axis=0)) for v in views if len(v.actions) > 1]
    )
    step = np.quantile(scale, 0.95, axis=0) + 1e-12
    for v in views:
        values = v.state if v.state is not None else v.actions
        if len(values) > 4:
            share = float((np.abs(np.diff(values, axis=0)) < 0.02 * step).all(1).mean())
            if share > IDLE_SHARE:
                still.append((v.key, share))
    if still:
        worst = max(s for _, s in still)
        yield Finding(
            "idle",
            "warning",
            f"{len(still)} of {len(views)} episodes stand still for more than {100 * IDLE_SHARE:.0f} % of their rows (up to {100 * worst:.0f} %): a policy learns to wait; cut these rows",
            [k for k, _ in still],
        )


def duplicates(patient: Patient, views: list[View]) -> Iterator[Finding]:
    """The same actions twice."""
    groups: dict[str, list[str]] = defaultdict(list)
    for v in views:
        groups[hashlib.sha256(np.ascontiguousarray(np.round(v.actions, 6)).tobytes()).hexdigest()].append(v.key)
    twice = [keys for keys in groups.values() if len(keys) > 1]
    if twice:
        shown = "; ".join(" = ".join(k[:4]) for k in twice[:5])
        yield Finding(
            "duplicates",
            "warning",
            f"{sum(len(k) - 1 for k in twice)} episodes repeat another's actions: {shown}; drop the copies",
            [k for keys in twice for k in keys[1:]],
        )


def words(patient: Patient, views: list[View]) -> Iterator[Finding]:
    """Empty instructions, one for all, or a few that drown the others."""
    empty = [v.key for v in views if not v.instruction.strip()]
    if empty:
        yield Finding("no instruction", "error", f"{len(empty)} episodes have no instruction; set mapping.instruction", empty)
    counts = Counter(v.instruction for v in views if v.instruction.strip())
    if len(counts) == 1 and len(views) > 1:
        yield Finding(
            "one instruction", "note", f"all episodes have the instruction {next(iter(counts))!r}: a policy will not listen to it"
        )
    elif counts and max(counts.values()) > BALANCE * float(np.median(list(counts.values()))):
        name, n = counts.most_common(1)[0]
        yield Finding(
            "unbalanced",
            "warning",
            f"{name!r} has {n} episodes, the median instruction {np.median(list(counts.values())):.0f}; weight or drop some",
        )


def leakage(patient: Patient, views: list[View]) -> Iterator[Finding]:
    """Episodes that train and validation share."""
    marks: dict[str, set[str]] = {"train": set(), "val": set()}
    keys: dict[str, str] = {}
    for v in views:
        mark = hashlib.sha256(np.ascontiguousarray(np.round(v.actions, 6)).tobytes()).hexdigest()
        marks.setdefault(v.split, set()).add(mark)
        keys[mark] = v.key
    shared = marks["train"] & marks["val"]
    if shared:
        yield Finding(
            "leakage",
            "error",
            f"{len(shared)} validation episodes are in the training split too; split again",
            [keys[m] for m in shared],
        )
