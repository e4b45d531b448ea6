"""Recorded observations on which the policy predicts under changed conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from vla.diagnose.lines import by_episode
from vla.doctor.views import EpisodeView
from vla.errors import DataError
from vla.policies.bound import BoundPolicy
from vla.utils.resize import fit_image

BATCH = 32  # observations of one policy call
MOST_EPISODES = 24


@dataclass
class Windows:
    """N rows of E episodes, evenly spaced; validation episodes come first.

    Predictions use the same random numbers in every call, so that two conditions differ only in
    the policy's input.
    """

    policy: BoundPolicy
    episodes: list[EpisodeView]  # E
    episode_N: np.ndarray  # number of the episode
    row_N: np.ndarray  # row of the episode
    texts: tuple[str, ...]  # all instructions of the data set
    scale_A: np.ndarray  # standard deviation of the recorded actions; 1 for constant dimensions
    moving_A: np.ndarray  # bool, False for constant dimensions
    _images: dict[int, torch.Tensor] = field(default_factory=dict)

    @property
    def steps(self) -> list[int]:
        """Compared steps of a chunk (S of them): the first, the middle and the last one.

        The first absolute target is close to the state. Later steps show more of what a policy
        makes of images and instruction.
        """
        horizon = self.policy.spec.horizon
        return sorted({0, horizon // 2, horizon - 1})

    @property
    def recorded_NSA(self) -> np.ndarray:
        """Recorded actions in robot units; NaN after the end of the episode."""
        return self.ahead([e.actions for e in self.episodes])

    @property
    def state_NSP(self) -> np.ndarray | None:
        """Measured state in robot units; NaN after the end; None without a state."""
        states = [e.state for e in self.episodes if e.state is not None]
        return self.ahead(states) if len(states) == len(self.episodes) else None

    def ahead(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """(N, S, D) rows of (T, D) arrays of every episode, ``steps`` after each window's row.

        NaN after the end of the episode, and where the instruction is another one.
        """
        out = np.full((len(self.row_N), len(self.steps), values[0].shape[1]), np.nan)
        for n, (e, t) in enumerate(self._places()):
            texts = self.episodes[e].instructions
            for s, step in enumerate(self.steps):
                inside = t + step < len(values[e])
                if inside and (not texts or texts[t + step] == texts[t]):
                    out[n, s] = values[e][t + step]
        return out

    @property
    def instructions(self) -> list[str]:
        """N recorded instructions."""
        return [instruction_at(self.episodes[e], t) for e, t in self._places()]

    def _places(self) -> list[tuple[int, int]]:
        return list(zip(self.episode_N.tolist(), self.row_N.tolist(), strict=True))

    def images(self, shift: int = 0) -> torch.Tensor:
        """(N, V, T, 3, H, W) uint8 of the rows ``shift`` later, within the episode."""
        if shift not in self._images:
            made = self._load(shift)
            if shift:
                return made  # used once
            self._images[shift] = made
        return self._images[shift]

    def _load(self, shift: int) -> torch.Tensor:
        spec = self.policy.spec
        views: list[np.ndarray] = [np.empty(0)] * len(self.row_N)
        for e, episode in enumerate(self.episodes):
            mine = np.flatnonzero(self.episode_N == e)
            last = len(episode.actions) - 1
            wanted = {
                int(n): [
                    min(max(int(self.row_N[n]) - k + shift, 0), last)
                    for k in reversed(range(spec.history))
                ]
                for n in mine
            }
            rows = sorted({r for past in wanted.values() for r in past})
            frames = {
                c: dict(zip(rows, _resized(episode, c, rows, self.policy), strict=True))
                for c in spec.cameras
            }
            for n, past in wanted.items():
                views[n] = np.array([[frames[c][r] for r in past] for c in spec.cameras])
        if not spec.cameras:
            return torch.zeros((len(views), 0, spec.history, 3, *spec.image_size)).byte()
        return torch.from_numpy(np.stack(views)).permute(0, 1, 2, 5, 3, 4)

    def predict(
        self,
        images: torch.Tensor | None = None,
        instructions: Sequence[str] | None = None,
        rows: np.ndarray | None = None,
        batch: int = BATCH,
    ) -> np.ndarray:
        """(n, S, A) predicted actions in robot units; arguments that are None: as recorded.

        Args:
            images, instructions: of the chosen ``rows``.
            rows: numbers of the windows; None: all.
            batch: observations of one policy call.
        """
        chosen = np.arange(len(self.row_N)) if rows is None else rows
        images = self.images()[torch.from_numpy(chosen)] if images is None else images
        given = self.instructions
        texts = [given[n] for n in chosen] if instructions is None else list(instructions)
        history = self._state_history(chosen)
        chunks = []
        for first in range(0, len(chosen), batch):
            part = slice(first, first + batch)
            extra = {} if history is None else {"state_BTP": history[part]}
            if self.policy.uses_previous_plan():
                extra["previous_plans"] = [""] * len(texts[part])  # type: ignore[assignment]
            torch.manual_seed(0)
            with torch.no_grad():
                chunks.append(
                    self.policy.predict(images[part].contiguous(), texts[part], **extra)[0]
                )
        return np.concatenate(chunks)[:, self.steps]

    def _state_history(self, rows: np.ndarray) -> torch.Tensor | None:
        spec = self.policy.spec
        if not spec.state_dim:
            return None
        steps = range(spec.history - 1, -1, -1)
        found = [
            [self.episodes[e].state[max(0, t - k)] for k in steps]  # type: ignore[index]
            for e, t in zip(self.episode_N[rows], self.row_N[rows], strict=True)
        ]
        return torch.from_numpy(np.array(found, np.float32))

    def window_errors(self, predicted_NSA: np.ndarray, target_NSA: np.ndarray) -> np.ndarray:
        """(N,) mean absolute error of every window, in standard deviations of the data."""
        scaled = np.abs(predicted_NSA - target_NSA) / self.scale_A
        means: np.ndarray = np.nanmean(scaled[..., self.moving_A], (1, 2))
        return means

    def errors(self, predicted_NSA: np.ndarray, target_NSA: np.ndarray) -> np.ndarray:
        """(E,) mean of ``window_errors`` of every episode."""
        return by_episode(self.window_errors(predicted_NSA, target_NSA), self.episode_N)

    def change(self, one_NSA: np.ndarray, other_NSA: np.ndarray) -> float:
        """Mean absolute difference of two predictions, in standard deviations of the data."""
        scaled = np.abs(one_NSA - other_NSA) / self.scale_A
        return float(scaled[..., self.moving_A].mean())


def instruction_at(episode: EpisodeView, row: int) -> str:
    """The instruction of one row; empty if the row has none, and is not trained."""
    return episode.instructions[row] if episode.instructions else episode.instruction


def _resized(
    episode: EpisodeView, camera: str, rows: list[int], policy: BoundPolicy
) -> list[np.ndarray]:
    spec, frames = policy.spec, episode.images(camera, rows)
    if min(spec.image_size) < 1:
        return frames
    return [fit_image(frame, spec.image_size, spec.image_fit) for frame in frames]


def sample_windows(policy: BoundPolicy, episodes: list[EpisodeView], limit: int) -> Windows:
    """Windows of at most ``MOST_EPISODES`` episodes, about ``limit`` in all.

    The instructions take turns, so that every one is among the episodes.
    """
    pooled = np.concatenate([e.actions for e in episodes])
    spread = pooled.std(0)
    moving = spread > 1e-6 * np.maximum(1.0, np.abs(pooled).max(0))
    if not moving.any():
        raise DataError("all recorded actions are equal, so the policy cannot be judged")
    chosen = _in_turn([e for e in episodes if e.split == "val"])
    chosen += _in_turn([e for e in episodes if e.split != "val"])
    chosen = [e for e in chosen if any(t.strip() for t in e.instructions or [e.instruction])]
    if not chosen:
        raise DataError("no episode has an instruction; pack with source.mapping.instruction")
    chosen = chosen[: max(1, min(MOST_EPISODES, limit))]
    each = max(1, limit // len(chosen))
    rows = [_spread_rows(e, each) for e in chosen]
    return Windows(
        policy,
        chosen,
        np.repeat(np.arange(len(chosen)), [len(r) for r in rows]),
        np.concatenate(rows),
        tuple(sorted({t for e in episodes for t in e.instructions or [e.instruction]} - {""})),
        np.where(moving, spread, 1.0),
        moving,
    )


def _spread_rows(episode: EpisodeView, most: int) -> np.ndarray:
    """At most ``most`` evenly spaced rows that have an instruction."""
    usable = [t for t in range(len(episode.actions)) if instruction_at(episode, t).strip()]
    places = np.linspace(0, len(usable) - 1, min(most, len(usable))).round().astype(int)
    return np.array(usable, int)[places]


def _in_turn(episodes: list[EpisodeView]) -> list[EpisodeView]:
    """Episodes in an order in which the instructions take turns."""
    groups: dict[str, list[EpisodeView]] = {}
    for episode in episodes:
        groups.setdefault(episode.instruction, []).append(episode)
    most = max(map(len, groups.values()), default=0)
    return [group[n] for n in range(most) for group in groups.values() if n < len(group)]
