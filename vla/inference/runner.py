"""Observations in, actions out: the one place that keeps a policy's state between calls."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from vla.inference.action_queue import ActionQueue
from vla.policies.bound import BoundPolicy
from vla.policies.execution import Execution
from vla.policies.names import match_cameras
from vla.policies.observations import camera_image
from vla.policies.spec import RobotSpec
from vla.utils.modes import evaluation_mode

# {"images": {camera: image}, "instruction": str} and, if used, "state": (P,) float; images are
# brought to the policy's size, see ``camera_image``
Observation = Mapping[str, Any]


@dataclass(frozen=True)
class _Memory:
    """State of one episode or client, oldest frame first."""

    images: tuple[torch.Tensor, ...] = ()  # each (V, 1, 3, H, W) uint8
    states: tuple[torch.Tensor, ...] = ()  # each (1, P)
    instruction: str = ""
    plan: str = ""  # plan of the last policy call; empty if the instruction changed since
    calls: int = 0  # policy calls since the start of the episode


class PolicyRunner:
    """Runs one policy for one or many parallel episodes or clients, each named by a key.

    It keeps the frame and state history, the action queue and the previous plan of every key.
    Before the first frame of an episode the history is filled with that frame. Threads may share
    a runner: policy calls run one at a time.

    Args:
        policy: a policy bound to one of its robots.
        execution: execution horizon or temporal ensembling; None: the one saved with the policy.

    Raises:
        ConfigError: the execution does not fit the length of the policy's action chunks.
    """

    def __init__(self, policy: BoundPolicy, execution: Execution | None = None) -> None:
        self.policy, self.spec = policy, policy.spec
        self.execution = self.spec.execution if execution is None else execution
        self.queue = ActionQueue(self.spec.action_space, self.spec.horizon, self.execution)
        self._memory: dict[Hashable, _Memory] = {}
        self._uses_previous_plan = policy.uses_previous_plan()
        self._lock = threading.RLock()  # reentrant: ``act`` calls ``predict``

    def reset(self, key: Hashable) -> None:
        """Start a new episode: drop the history, the queued actions and the previous plan."""
        with self._lock:
            self._memory.pop(key, None)
            self.queue.reset(key)

    def plan(self, key: Hashable) -> str:
        """The plan of the action that is executed; empty: the policy acted without a plan."""
        with self._lock:
            return self._memory.get(key, _Memory()).plan

    def act(self, keys: Sequence[Hashable], observations: Sequence[Observation]) -> np.ndarray:
        """One control step: actions (B, A) float32 in robot units.

        Raises:
            ValueError: an observation lacks a camera or the state that the policy uses.
        """
        with self._lock:
            rows = dict(zip(keys, observations, strict=True))
            calls = [key for key in keys if self.queue.needs_chunk(key)]
            queued = {key: self._extended(key, rows[key]) for key in keys if key not in calls}
            if calls:
                chunks, _ = self.predict(calls, [rows[key] for key in calls])
                for key, chunk in zip(calls, chunks, strict=True):
                    self.queue.push(key, chunk)
            self._memory |= queued
            return np.stack([self.queue.pop(key) for key in keys])

    def actions_to_execute(self, key: Hashable, chunk: np.ndarray) -> np.ndarray:
        """The actions (N, A) that a client executes before its next request.

        N is the execution horizon. With temporal ensembling it is 1, and every request is one
        control step of the client.

        Args:
            key: None stands for a client without history, as for ``predict``.
            chunk: (H, A), predicted for this request.

        Raises:
            ValueError: temporal ensembling without a key.
        """
        if self.execution.temporal_ensemble is None:
            return chunk[: self.queue.execution_horizon]
        if key is None:
            raise ValueError("temporal ensembling needs a client whose predictions are kept")
        with self._lock:
            self.queue.push(key, chunk)
            return self.queue.pop(key)[None]

    def predict(
        self, keys: Sequence[Hashable], observations: Sequence[Observation]
    ) -> tuple[np.ndarray, list[str]]:
        """One policy call for every key: chunks (B, H, A) in robot units and the plans (B texts).

        Chunks are whole, and the action queue is not used. State is updated only if the call
        succeeds.

        Args:
            keys: None stands for a client without history: nothing is kept for it.

        Raises:
            ValueError: as ``act``.
        """
        with self._lock:
            memory = [self._extended(k, o) for k, o in zip(keys, observations, strict=True)]
            optional: dict[str, Any] = {}
            if self.spec.state_dim:
                optional["state_BTP"] = torch.stack([torch.cat(m.states) for m in memory])
            if self._uses_previous_plan:
                optional["previous_plans"] = [m.plan for m in memory]
            if self.policy.samples():
                optional["row_seeds"] = [_row_seed(m) for m in memory]
            images_BVTCHW = torch.stack([torch.cat(m.images, 1) for m in memory])
            instructions = [m.instruction for m in memory]
            with evaluation_mode(getattr(self.policy, "policy", None)):
                chunks, plans = self.policy.predict(images_BVTCHW, instructions, **optional)
            for key, extended, plan in zip(keys, memory, plans, strict=True):
                if key is not None:
                    self._memory[key] = replace(extended, plan=plan, calls=extended.calls + 1)
            return chunks, plans

    def _extended(self, key: Hashable, observation: Observation) -> _Memory:
        """The memory of ``key`` with this observation appended; nothing is stored."""
        history, last = self.spec.history, self._memory.get(key, _Memory())
        image = to_images(observation, self.spec)
        images = (*(last.images or (image,) * (history - 1)), image)[-history:]
        states: tuple[torch.Tensor, ...] = ()
        if self.spec.state_dim:
            state = to_state(observation, self.spec.state_dim)
            states = (*(last.states or (state,) * (history - 1)), state)[-history:]
        instruction = str(observation["instruction"])
        # a plan belongs to the instruction that it was made for
        plan = last.plan if last.instruction == instruction else ""
        return _Memory(images, states, instruction, plan, last.calls)


def _row_seed(memory: _Memory) -> int:
    """Seed of one row's random tokens: a checksum of the observation, and the call's number.

    An episode then has the same tokens whatever episodes run beside it.
    """
    seed = zlib.crc32(memory.instruction.encode(), memory.calls)
    for tensor in (*memory.images[-1:], *memory.states[-1:]):
        seed = zlib.crc32(tensor.contiguous().numpy().tobytes(), seed)
    return seed


def to_images(observation: Observation, spec: RobotSpec) -> torch.Tensor:
    """An observation's images as (V, 1, 3, H, W) uint8 in the policy's camera order and size.

    A policy without cameras gets (0, 1, 3, 0, 0), whatever images the observation has.

    Raises:
        ValueError: a camera of the policy has no image of its name, or an image is invalid.
    """
    if not spec.cameras:
        return torch.zeros((0, 1, 3, 0, 0), dtype=torch.uint8)
    images = observation["images"]
    names = match_cameras(spec.cameras, list(images), {}, "rename one of them")
    views = [camera_image(images[names[c]], c, spec) for c in spec.cameras]
    if len({view.shape for view in views}) > 1:
        sizes = ", ".join(f"{c} {v.shape}" for c, v in zip(spec.cameras, views, strict=True))
        raise ValueError(f"the images of one observation must have one size; got {sizes}")
    array = np.stack(views) if views else np.zeros((0, *spec.image_size, 3), np.uint8)
    return torch.from_numpy(array).permute(0, 3, 1, 2)[:, None]


def to_state(observation: Observation, width: int) -> torch.Tensor:
    """An observation's measured state as (1, width) float32.

    Raises:
        ValueError: the observation has no state, or one of another width.
    """
    shape = np.shape(observation["state"]) if "state" in observation else ()
    if shape != (width,):
        raise ValueError(
            f"the policy needs a state of {width} numbers; the observation has {shape or 'none'}"
        )
    return torch.from_numpy(np.asarray(observation["state"])).float()[None]
