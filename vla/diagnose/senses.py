"""Does the policy use the instruction and the images?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from vla.diagnose.lines import (
    INSTRUCTIONS,
    MIN_EPISODES,
    Line,
    by_episode,
    clearly_lower,
    few_episodes,
    not_judged,
    p_lower,
)
from vla.diagnose.windows import Windows
from vla.doctor.views import EpisodeView

IGNORED = 0.02  # change of the actions, in their spread, below which an input is ignored
FOLLOWED = 0.1  # change above which the policy clearly reacts to an input
MOST_TEXTS = 7  # instructions that are tried on every window
_CHANCE = 0.05  # p-value above which the instructions of the episodes say nothing of their motion


def language(
    windows: Windows,
    images: torch.Tensor,
    target_NSA: np.ndarray,
    episodes: Sequence[EpisodeView],
) -> list[Line]:
    """Predictions with the recorded, another and an empty instruction.

    Validation episodes are judged if there are enough: training episodes may be memorised.
    """
    texts, own = list(windows.texts), windows.instructions
    if len(texts) < 2:
        return [not_judged("language", f"one instruction ({texts[0]!r})")]
    places = np.linspace(0, len(texts) - 1, min(len(texts), MOST_TEXTS)).round().astype(int)
    tried = [texts[k] for k in places]
    true_NSA = windows.predict(images, own)
    each = [windows.predict(images, [text] * len(own)) for text in tried]
    is_own_NM = np.array([[text == mine for text in tried] for mine in own])
    changes_M = [windows.change(true_NSA, other) for other in each]
    change = float(np.sum(changes_M)) / max(1e-9, float((~is_own_NM).mean(0).sum()))
    empty = windows.change(true_NSA, windows.predict(images, [""] * len(own)))
    errors = _Errors(
        windows.window_errors(true_NSA, target_NSA),
        np.stack([windows.window_errors(other, target_NSA) for other in each], 1),
        is_own_NM,
        windows.episode_N,
    )
    held_out = np.array([e.split == "val" for e in windows.episodes])
    enough = held_out.sum() >= MIN_EPISODES
    errors.used_E = held_out if enough else np.ones_like(held_out)
    a, b = errors.true(), errors.others()
    text = (
        f"another instruction changes the actions by {100 * change:.1f} % of their spread, an "
        f"empty one by {100 * empty:.1f} %; error {a.mean():.3f} with the true one, "
        f"{b.mean():.3f} with others ({len(a)} {'validation' if enough else 'mostly training'} "
        "episodes)"
    )
    if len(a) < MIN_EPISODES:
        return [few_episodes("language", len(a), text)]
    follows = clearly_lower(a, b, 1.0)
    wrong = errors.other_fits_better()
    if follows and a.mean() < 0.5 * b.mean() and wrong.sum() >= max(2, 0.2 * len(a)):
        share = f"in {wrong.sum()} of {len(a)} episodes another instruction fits much better"
        return [_shuffled(f"{share}; {text}")]
    if follows and change >= IGNORED:
        return [Line("language", "ok", text)]
    if change >= FOLLOWED and len(places) == len(texts) and errors.one_fits_best():
        return [_shuffled(f"one instruction fits each episode, but not the recorded one; {text}")]
    p = label_information(episodes)
    if p is not None and p > _CHANCE and not follows:
        said = f"instructions and motion of the episodes are unrelated (p = {p:.2f})"
        return [_shuffled(f"the policy does not follow the instruction; {said}; {text}")]
    named = "ignores" if change < IGNORED else "hardly follows"
    return [
        Line(
            "language",
            "warn",
            f"the policy {named} the instruction: {text}",
            "check that instructions belong to their episodes; record several tasks in the same "
            "scene; train longer, or with a pretrained language model",
        )
    ]


@dataclass
class _Errors:
    """Errors of N windows with the true instruction, and with each of M instructions."""

    true_N: np.ndarray
    each_NM: np.ndarray
    is_own_NM: np.ndarray  # bool: this instruction is the true one
    episode_N: np.ndarray
    used_E: np.ndarray = field(default_factory=lambda: np.ones(0, bool))

    def _means(self, values_N: np.ndarray) -> np.ndarray:
        return by_episode(values_N, self.episode_N)[self.used_E]

    def true(self) -> np.ndarray:
        """(E,) error with the true instruction."""
        return self._means(self.true_N)

    def others(self) -> np.ndarray:
        """(E,) mean error with the other instructions."""
        others = np.where(self.is_own_NM, np.nan, self.each_NM)
        return self._means(np.nanmean(others, 1))

    def _halves(self) -> tuple[np.ndarray, np.ndarray]:
        """(E, M) errors of every second window of each episode, and of the rest."""
        odd = np.arange(len(self.episode_N)) % 2 == 1
        found = []
        for part in (odd, ~odd):
            sums = np.zeros((self.episode_N.max() + 1, self.each_NM.shape[1]))
            np.add.at(sums, self.episode_N[part], self.each_NM[part])
            count = np.bincount(self.episode_N[part], minlength=len(sums))
            found.append((sums / np.maximum(count, 1)[:, None])[self.used_E])
        return found[0], found[1]

    def one_fits_best(self) -> bool:
        """True if an instruction, chosen on half of an episode's windows, fits the other half.

        The mean of each instruction over the episodes is subtracted before the choice: an
        instruction after which the robot hardly moves may fit all episodes.
        """
        half, rest = self._halves()
        chosen = (half - half.mean(0)).argmin(1)
        best = rest[np.arange(len(rest)), chosen]
        return clearly_lower(best, rest.mean(1), 0.85)

    def other_fits_better(self) -> np.ndarray:
        """(E,) bool: the same other instruction halves the error in both halves of the windows."""
        half, rest = self._halves()
        same = half.argmin(1) == rest.argmin(1)
        return same & (half.min(1) + rest.min(1) < self.true())


def _shuffled(finding: str) -> Line:
    return Line(
        "language",
        "fail",
        f"instructions seem shuffled: {finding}",
        "compare instructions with the episodes (vla doctor --html); repair the task index or "
        "source.mapping.instruction, pack and train again",
        INSTRUCTIONS,
    )


def label_information(episodes: Sequence[EpisodeView]) -> float | None:
    """p-value of a permutation test that episodes of one instruction move alike.

    Compared are the mean actions of each third of an episode. None: too few episodes. A high value
    is also possible in sound data, if only the images decide what an instruction means.
    """
    labels = np.unique([e.instruction for e in episodes], return_inverse=True)[1]
    long = [len(e.actions) >= 3 for e in episodes]
    if not all(long) or len(labels) < 3 * (labels.max() + 1) or len(labels) < 12:
        return None
    means = [[part.mean(0) for part in np.array_split(e.actions, 3)] for e in episodes]
    features = np.array(means).reshape(len(labels), -1)
    spread = features.std(0)
    features = (features - features.mean(0))[:, spread > 1e-9] / spread[spread > 1e-9]

    def between(given: np.ndarray) -> float:
        sums = np.zeros((labels.max() + 1, features.shape[1]))
        np.add.at(sums, given, features)
        return float((sums**2 / np.bincount(given)[:, None]).sum())

    rng, seen = np.random.default_rng(0), between(labels)
    return float(np.mean([between(rng.permutation(labels)) >= seen for _ in range(500)]))


def vision(
    windows: Windows, images: torch.Tensor, target_NSA: np.ndarray, judge_errors: bool = True
) -> list[Line]:
    """Predictions with the recorded images, those of another episode, and black ones.

    Args:
        judge_errors: False: only judge whether the actions change, because another fault is known.
    """
    names = windows.policy.spec.cameras
    if not names:
        return [not_judged("vision", "the policy has no camera")]
    if len(windows.episodes) < 2:
        return [few_episodes("vision", len(windows.episodes))]
    true_NSA = windows.predict(images)
    foreign = images[torch.from_numpy(_other_rows(windows))]
    swapped_NSA, black_NSA = windows.predict(foreign), windows.predict(torch.zeros_like(images))
    a, b = windows.errors(true_NSA, target_NSA), windows.errors(swapped_NSA, target_NSA)
    change = windows.change(true_NSA, swapped_NSA)
    text = (
        f"images of another episode change the actions by {100 * change:.1f} % of their spread, "
        f"black ones by {100 * windows.change(true_NSA, black_NSA):.1f} %; error {a.mean():.3f} "
        f"with the true images, {b.mean():.3f} with swapped ones"
    )
    if len(names) > 1:
        shares = []
        for v, name in enumerate(names):
            one = images.clone()
            one[:, v] = foreign[:, v]
            shares.append(f"{name} {100 * windows.change(true_NSA, windows.predict(one)):.1f} %")
        text += f"; alone: {', '.join(shares)}"
    fix = (
        "check that the images show the task and are not frozen or black (vla doctor --html); "
        "train longer; without need, leave out policy.state, which a policy may copy"
    )
    if change < IGNORED:
        return [Line("vision", "fail", f"the policy ignores the images: {text}", fix)]
    if len(a) < MIN_EPISODES:
        return [few_episodes("vision", len(a), text)]
    if judge_errors and not clearly_lower(a, b, 1.0):
        said = f"the true images fit no better than others (p = {p_lower(a, b):.2f})"
        return [Line("vision", "warn", f"{said}: {text}", fix)]
    return [Line("vision", "ok", text)]


def _other_rows(windows: Windows) -> np.ndarray:
    """(N,) for each window a window of the next episode, at about the same share of its length."""
    count = len(windows.episodes)
    out = np.zeros(len(windows.row_N), int)
    for e in range(count):
        mine = np.flatnonzero(windows.episode_N == e)
        theirs = np.flatnonzero(windows.episode_N == (e + 1) % count)
        places = np.linspace(0, len(theirs) - 1, len(mine)).round().astype(int)
        out[mine] = theirs[places]
    return out
