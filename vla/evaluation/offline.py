"""Open-loop evaluation: predicted and recorded actions on recorded observations."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla.data.images import decode_image
from vla.data.manifest import load_manifest
from vla.data.packed import iter_samples, open_packed
from vla.data.relative import reference
from vla.data.row_texts import summary
from vla.data.samples import read_frame, read_instructions, read_json, read_steps
from vla.data.windows import chunk_ends
from vla.errors import DataError
from vla.inference.runner import PolicyRunner
from vla.models.actions.bins import UniformBins
from vla.models.actions.normalise import fixed_dims
from vla.utils.progress import Progress


@dataclass
class Trajectory:
    """One episode: recorded and predicted actions (T, A) in robot units.

    The predicted action is the first of each chunk.
    """

    key: str
    instruction: str  # several, with arrows between them, if it changes
    recorded: np.ndarray
    predicted: np.ndarray
    plans: list[str]  # T generated plans; empty where the policy acted at once


@dataclass
class OfflineResult:
    """Mean errors over all frames that have an instruction.

    ``errors`` has the policy and three predictors that do not use images: "mean action" of the
    training data; "last action", the recorded action of the step before (the mean at the first
    step); "present state", if state and action have the same names (absolute targets). Errors of
    first actions have the predictor's name; errors of whole chunks, as far as the episode and its
    instruction go, have the suffix ", chunk".
    """

    names: tuple[str, ...]  # of the action dimensions
    frames: int
    errors: dict[str, np.ndarray]  # predictor -> (A,) mean absolute error in robot units
    same_bin: np.ndarray  # (A,) share of first actions in the recorded action's bin, of 256 bins
    range: np.ndarray  # (A,) width of the bounds in robot units
    # (A,) True: the dimension has one value in the training data, and the same one here.
    constant: np.ndarray
    trajectories: list[Trajectory]

    @property
    def l1(self) -> np.ndarray:
        """(A,) error of the policy's first action in robot units."""
        return self.errors["policy"]

    @property
    def l1_share(self) -> np.ndarray:
        """(A,) error of the policy's first action as a share of the range."""
        return self.l1 / self.range

    @property
    def averaged(self) -> np.ndarray:
        """(A,) True: the dimension counts in averages. If all are constant, all count."""
        return np.full_like(self.constant, True) if self.constant.all() else ~self.constant


def _episodes(
    data: Path, split: str
) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray], dict[str, Any]]]:
    for sample in iter_samples(data, split):
        yield read_json(sample), read_steps(sample), sample


def offline(
    policy: Any,
    data: str | Path,
    split: str = "val",
    episodes: int | None = None,
    batch: int = 32,
    progress: bool = True,
) -> OfflineResult:
    """Predict every frame of a split (or of its first ``episodes``) from recorded observations.

    Args:
        policy: a policy bound to one robot.
        batch: episodes that are predicted in parallel.

    Raises:
        DataError: the split is empty, the data lacks a camera, the state or an action dimension
            of the policy, or its images were packed with another ``fit``.
    """
    manifest = load_manifest(data)
    spec = policy.spec
    if manifest.image_fit != spec.image_fit:
        raise DataError(
            f"{data}: its images were packed with fit={manifest.image_fit}, the policy's training "
            f"images with fit={spec.image_fit}; pack it with source.mapping.fit={spec.image_fit}"
        )
    statistics = spec.statistics.get("actions") or manifest.statistics["actions"]
    mean = statistics["mean"]
    names = spec.action_space.names
    absolute = manifest.state_names[: len(names)] == names and not manifest.delta
    errors = _Errors(mean, spec.horizon, absolute)
    found: list[Trajectory] = []
    origins: list[np.ndarray] = []  # (T, A) state that relative actions are added to, else zeros
    recorded = (
        _recording(policy, data, *e) for e in islice(_episodes(Path(data), split), episodes)
    )
    runner, dims = PolicyRunner(policy), spec.relative
    count = len(open_packed(data).rows(split))
    total = count if episodes is None else min(count, episodes)
    with Progress(f"predict {data}", total, "episodes", show=progress) as bar:
        while group := list(islice(recorded, batch)):
            for recording, (chunks, plans) in zip(group, _predict(runner, group), strict=True):
                actions, state = recording.steps["actions"], recording.steps.get("state")
                texts = recording.texts
                rows = np.array([bool(text.strip()) for text in texts])
                trajectory = actions[rows], chunks[rows, 0], [plans[r] for r in rows.nonzero()[0]]
                found.append(Trajectory(recording.key, summary(texts), *trajectory))
                errors.add(chunks, actions, state, texts)
                origin = np.zeros_like(actions)
                if dims and state is not None:
                    origin = np.stack([reference(s, dims) for s in state])
                origins.append(origin[rows])
                bar.advance()
    same = _same_bin(policy, found, np.concatenate(origins))
    space = spec.action_space
    frames = sum(len(t.recorded) for t in found)
    width = np.array(space.high) - np.array(space.low)
    still = _constant(found, statistics)
    return OfflineResult(space.names, frames, errors.means(), same, width, still, found)


@dataclass
class _Recording:
    """One episode: arrays by name, and ``observation(t)`` as the policy gets it."""

    key: str
    texts: list[str]  # instruction of every step; empty: not labelled, its error does not count
    steps: dict[str, np.ndarray]
    observation: Callable[[int], dict[str, Any]]


def _recording(
    policy: Any, data: str | Path, meta: dict[str, Any], steps: dict[str, Any], sample: Any
) -> _Recording:
    spec, space = policy.spec, policy.spec.action_space
    if steps["actions"].shape[1] != space.dim:
        raise DataError(
            f"{data}: actions of {steps['actions'].shape[1]} numbers, the policy gives {space.dim} "
            f"({', '.join(space.names)})"
        )
    if spec.state_dim and ("state" not in steps or steps["state"].shape[1] != spec.state_dim):
        raise DataError(
            f"{data}: the policy needs a state of {spec.state_dim} numbers, "
            "this data has another or none"
        )
    key, texts = sample["__key__"], read_instructions(meta, len(steps["actions"]))

    def observation(t: int) -> dict[str, Any]:
        images = {c: decode_image(read_frame(sample, meta, c, t), key) for c in spec.cameras}
        state = {"state": steps["state"][t]} if spec.state_dim else {}
        return {"images": images, "instruction": texts[t], **state}

    return _Recording(key, texts, steps, observation)


def _predict(
    runner: PolicyRunner, group: Sequence[_Recording]
) -> list[tuple[np.ndarray, list[str]]]:
    """Action chunks (T, H, A) and T plans of every episode, all episodes in parallel."""
    found: list[tuple[list[np.ndarray], list[str]]] = [([], []) for _ in group]
    for key in range(len(group)):
        runner.reset(key)
    for t in range(max(len(r.steps["actions"]) for r in group)):
        keys = [k for k, r in enumerate(group) if t < len(r.steps["actions"])]
        chunks, plans = runner.predict(keys, [group[k].observation(t) for k in keys])
        for key, chunk, plan in zip(keys, chunks, plans, strict=True):
            found[key][0].append(chunk)
            found[key][1].append(plan)
    return [(np.stack(predicted), texts) for predicted, texts in found]


class _Errors:
    """Absolute errors of the policy and of predictors that do not look at the images."""

    def __init__(self, mean: Sequence[float], horizon: int, absolute: bool) -> None:
        self.mean, self.horizon, self.absolute = mean, horizon, absolute
        self.parts: dict[str, list[np.ndarray]] = {}

    def add(
        self, chunks: np.ndarray, actions: np.ndarray, state: np.ndarray | None, texts: list[str]
    ) -> None:
        """One episode: predicted (T, H, A), recorded (T, A), state (T, P), T instructions."""
        length = len(actions)
        rows = np.array([bool(text.strip()) for text in texts])
        ahead = np.arange(length)[:, None] + np.arange(self.horizon)
        true = actions[np.minimum(ahead, length - 1)]
        inside = (ahead < np.array(chunk_ends(texts))[:, None]) & rows[:, None]
        mean = np.array(self.mean, np.float32)
        guesses = {
            "policy": chunks,
            "mean action": np.broadcast_to(mean, actions.shape)[:, None],
            "last action": np.array([self.mean, *actions[:-1]], np.float32)[:, None],
        }
        if self.absolute and state is not None:
            guesses["present state"] = state[:, None, : actions.shape[1]]
        for name, guess in guesses.items():
            self.parts.setdefault(name, []).append(np.abs(guess[:, 0] - actions)[rows])
            if self.horizon > 1:
                error = np.abs(guess - true)[inside]
                self.parts.setdefault(f"{name}, chunk", []).append(error)

    def means(self) -> dict[str, np.ndarray]:
        """Predictor -> (A,) mean absolute error."""
        return {name: np.concatenate(parts).mean(0) for name, parts in self.parts.items()}


def _constant(found: Sequence[Trajectory], statistics: Mapping[str, Any]) -> np.ndarray:
    """(A,) True: every recorded action has the only value of the training data."""
    recorded = np.concatenate([t.recorded for t in found])
    fixed_A = fixed_dims(statistics, recorded.shape[1])  # NaN is close to no value
    still: np.ndarray = np.isclose(recorded, fixed_A, rtol=1e-6, atol=0).all(0)
    return still


def _same_bin(policy: Any, found: Sequence[Trajectory], origin: np.ndarray) -> np.ndarray:
    """(A,) share of first actions in the recorded action's bin (256 uniform bins)."""
    bins = UniformBins(256, action_dim=policy.spec.action_space.dim)
    normaliser = copy.deepcopy(policy.normaliser).cpu()
    index = []
    for name in ("predicted", "recorded"):
        values = torch.from_numpy(np.concatenate([getattr(t, name) for t in found]) - origin)
        chunks = values[:, None].expand(-1, policy.spec.horizon, -1)
        index.append(bins.index(normaliser(chunks)[:, 0]))
    share: np.ndarray = (index[0] == index[1]).float().mean(0).numpy()
    return share
