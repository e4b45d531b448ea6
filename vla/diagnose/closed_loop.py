"""Recorded actions and the policy in an environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.packed import iter_samples
from vla.data.samples import read_json
from vla.diagnose.lines import ACTION_TYPE, GRIPPER, INSTRUCTIONS, Line, not_judged
from vla.diagnose.subject import Subject
from vla.evaluation.replay import replay
from vla.evaluation.rollout import evaluate, open_benchmark
from vla.policies.bound import BoundPolicy

Change = Callable[[dict[str, np.ndarray]], np.ndarray]
_REPLAYED = 8  # episodes
# Shares of successful replays. Recordings with noise in the executed actions do not all repeat.
_OK, _FAIL = 0.5, 0.25


def replayed(subject: Subject, config: Mapping[str, Any], pairs: dict[int, int]) -> list[Line]:
    """Execute recorded actions; where they fail, try them inverted and as the other kind.

    Args:
        config: the benchmark; empty: the one in which the data was recorded.
        pairs: action dimension -> state dimension of the same quantity.
    """
    config = dict(config) or subject.manifest.benchmark
    if not config:
        return [not_judged("replay", "no environment; name one with --benchmark")]
    if not _starts_are_recorded(subject):
        text = "the data has no seeds, so an episode cannot start as recorded"
        return [not_judged("replay", text)]
    share, count = _success(subject.data, config)
    text = (
        f"{round(share * count)} of {count} recorded episodes reach their goal in the environment"
    )
    if share >= _OK:
        return [Line("replay", "ok", text)]
    tried = {
        key: _success(subject.data, config, change)[0]
        for key, change in _changes(subject, pairs).items()
    }
    best = max(tried, key=lambda k: tried[k], default=None)
    if best is not None and tried[best] >= share + 0.4:
        what, fault = best
        return [
            Line(
                "replay",
                "fail",
                f"{what}: {text}; with the actions changed back {100 * tried[best]:.0f} %",
                "pack the data with the convention of the environment: source.mapping.invert, "
                "source.mapping.delta",
                fault,
            )
        ]
    fix = "check units, order, rate and signs of the actions (vla replay --out shows videos)"
    return [Line("replay", "fail" if share < _FAIL else "warn", text, fix)]


def _starts_are_recorded(subject: Subject) -> bool:
    info = read_json(next(iter(iter_samples(subject.data, "train")))).get("info", {})
    return "seed" in info or "reset_options" in info


def _success(
    data: Path,
    config: Mapping[str, Any],
    change: Change = lambda steps: steps["actions"],
) -> tuple[float, int]:
    results, _, _ = replay(data, config, _REPLAYED, change)
    return float(np.mean([r.success for r in results])), len(results)


def _changes(subject: Subject, pairs: dict[int, int]) -> dict[tuple[str, str], Change]:
    """(finding, fault) -> how the recorded actions would have to change."""
    space = subject.policy.spec.action_space
    found: dict[tuple[str, str], Change] = {}
    for k, name in enumerate(space.names):
        if name in space.binary or "grip" in name.lower():
            found[f"inverted gripper {name}", GRIPPER] = _inverted(k, space.low[k] + space.high[k])
    if pairs:
        found["absolute targets recorded, movements needed", ACTION_TYPE] = _moved(pairs, -1.0)
        found["movements recorded, absolute targets needed", ACTION_TYPE] = _moved(pairs, 1.0)
    return found


def _inverted(k: int, total: float) -> Change:
    def change(steps: dict[str, np.ndarray]) -> np.ndarray:
        actions = steps["actions"].copy()
        actions[:, k] = total - actions[:, k]
        return actions

    return change


def _moved(pairs: dict[int, int], sign: float) -> Change:
    def change(steps: dict[str, np.ndarray]) -> np.ndarray:
        actions = steps["actions"].copy()
        for k, p in pairs.items():
            actions[:, k] += sign * steps["state"][:, p]
        return actions

    return change


@dataclass(frozen=True)
class _Reworded:
    """A bound policy that gets other instructions."""

    policy: BoundPolicy
    words: Callable[[str], str]

    @property
    def spec(self) -> Any:
        return self.policy.spec

    def uses_previous_plan(self) -> bool:
        return self.policy.uses_previous_plan()

    def uses_drafts(self) -> bool:
        return self.policy.uses_drafts()

    def samples(self) -> bool:
        return self.policy.samples()

    def uses_known_actions(self) -> bool:
        return self.policy.uses_known_actions()

    def predict(self, images: Any, instructions: Sequence[str], **extra: Any) -> Any:
        return self.policy.predict(images, [self.words(i) for i in instructions], **extra)


def language_success(subject: Subject, config: Mapping[str, Any], episodes: int) -> list[Line]:
    """Success with the true, another and an empty instruction, in the same episodes."""
    policy = subject.policy
    benchmark = open_benchmark(config, policy.spec.cameras)
    tasks = benchmark.default_tasks()
    texts = sorted({t.instruction for t in tasks if t.instruction}) or ["", "do nothing"]
    conditions: dict[str, Callable[[str], str]] = {
        "true": lambda text: text,
        "another": lambda text: _next(texts, text),
        "empty": lambda text: "",
    }
    each = max(1, episodes // len(tasks))
    shares = {
        name: float(
            np.mean(
                [
                    r.success
                    for r in evaluate(
                        _Reworded(policy, words), benchmark, tasks, each, progress=False
                    )[0]
                ]
            )
        )
        for name, words in conditions.items()
    }
    total = each * len(tasks)
    listed = ", ".join(f"{100 * s:.0f} % with the {n}" for n, s in shares.items())
    text = f"success in {benchmark.name}, {total} episodes: {listed} instruction"
    error = 2 * np.sqrt(0.25 / total)  # two standard errors of a share
    if len(texts) > 1 and shares["another"] > shares["true"] + error:
        fix = "compare the instructions of the data with its episodes"
        return [Line("success", "fail", text, fix, INSTRUCTIONS)]
    if shares["true"] < 0.1:
        fix = "see the other lines; if they are ok, train longer or on more episodes"
        return [Line("success", "warn", text, fix)]
    if len(texts) > 1 and total >= 10 and shares["another"] > shares["true"] - 0.1:
        fix = "the policy ignores the instruction; see the line language"
        return [Line("success", "warn", text, fix)]
    return [Line("success", "ok", text)]


def _next(texts: Sequence[str], text: str) -> str:
    return texts[(texts.index(text) + 1) % len(texts)] if text in texts else texts[0]
