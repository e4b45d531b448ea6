"""The lines of a diagnosis, and the evidence that a difference needs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vla.utils.text import count

Verdict = Literal["ok", "warn", "fail"]
EXIT_CODES: dict[Verdict, int] = {"ok": 0, "warn": 1, "fail": 2}

GRIPPER = "inverted gripper"
VIDEO = "shifted video"
STATISTICS = "wrong statistics"
CAMERAS = "swapped cameras"
INSTRUCTIONS = "shuffled instructions"
ACTION_TYPE = "delta/absolute mix-up"

MIN_EPISODES = 5  # a difference over fewer episodes is not judged
SIGNIFICANT = 0.05  # largest p-value of a difference that is reported
_DRAWS = 4000  # random draws of a permutation test or bootstrap


@dataclass(frozen=True)
class Line:
    """One result of a check."""

    check: str  # name of the check
    verdict: Verdict
    finding: str  # in numbers
    fix: str = ""  # what to do; empty if nothing
    fault: str = ""  # known kind of fault, for example ``GRIPPER``; empty: none or another
    judged: bool = True  # False: the check does not apply, or the data does not suffice

    @property
    def label(self) -> str:
        """The verdict as shown: ok, warn, fail, or skip for an ok that was not judged."""
        return self.verdict if self.judged or self.verdict != "ok" else "skip"


def not_judged(check: str, reason: str) -> Line:
    """The line of a check that does not apply, or whose data does not suffice."""
    return Line(check, "ok", f"not judged: {reason}", judged=False)


def few_episodes(check: str, episodes: int, measured: str = "") -> Line:
    """The line of a check that has too few episodes; ``measured``: its numbers nevertheless."""
    reason = f"{count(episodes, 'episode')}, {MIN_EPISODES} are needed"
    return not_judged(check, f"{reason}; {measured}" if measured else reason)


def p_lower(a_E: np.ndarray, b_E: np.ndarray) -> float:
    """One-sided p-value of a sign-flip test that ``a`` is lower than ``b`` on average.

    Args:
        a_E, b_E: paired values, one of each for every episode.
    """
    difference = b_E - a_E
    pairs = len(difference)
    if pairs <= 12:
        signs = np.array(list(itertools.product((1, -1), repeat=pairs)))
    else:
        signs = np.random.default_rng(0).choice((1, -1), (_DRAWS, pairs))
    means = signs @ difference / pairs
    return float((means >= difference.mean() - 1e-12).mean())


def clearly_lower(a_E: np.ndarray, b_E: np.ndarray, ratio: float, tests: int = 1) -> bool:
    """True if the mean of ``a`` is below ``ratio`` times that of ``b``, and significantly lower.

    Args:
        tests: number of alternatives of which ``a`` is the best; the level is divided by it. It
            is at least the smallest p-value that this number of episodes allows.
    """
    if len(a_E) < MIN_EPISODES or a_E.mean() >= ratio * b_E.mean():
        return False
    level = max(SIGNIFICANT / tests, 2.0 ** -len(a_E) + 1e-9)
    return p_lower(a_E, b_E) <= level


def shuffled_weights(episodes: int, draws: int = 500) -> np.ndarray:
    """(draws, E) weights of a bootstrap over episodes; all weights of the first row are 1."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(episodes, np.full(episodes, 1 / episodes), draws - 1)
    return np.concatenate([np.ones((1, episodes)), drawn]).astype(np.float64)


def by_episode(values_N: np.ndarray, episode_N: np.ndarray) -> np.ndarray:
    """(E,) mean of the values of every episode; ``episode_N`` has the numbers 0 to E - 1."""
    return np.bincount(episode_N, values_N) / np.bincount(episode_N)


def listed(names: Sequence[object], most: int = 6) -> str:
    """``a, b, c`` with at most ``most`` names."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more
