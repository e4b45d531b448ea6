"""Observations in, actions out: the one place that keeps a policy's state between calls."""

from __future__ import annotations

import logging
import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from vla.inference.action_queue import ActionQueue
from vla.inference.inputs import Observation, row_seed, to_images, to_state
from vla.models.decoders.drafts import Draft
from vla.policies.bound import BoundPolicy
from vla.policies.execution import Execution
from vla.policies.units import finite
from vla.types import Leftover
from vla.utils.modes import evaluation_mode

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Memory:
    """State of one episode or client, oldest frame first."""

    images: tuple[torch.Tensor, ...] = ()  # each (V, 1, 3, H, W) uint8
    states: tuple[torch.Tensor, ...] = ()  # each (1, P)
    instruction: str = ""
    plan: str = ""  # plan of the last policy call; empty if the instruction changed since
    calls: int = 0  # policy calls since the start of the episode
    left: int = 0  # actions that the client had left at its last request
    draft: Draft | None = None  # last generated text, for speculative decoding


class PolicyRunner:
    """Runs one policy for one or many parallel episodes or clients, each named by a key.

    It keeps the frame and state history, the action queue and the previous plan of every key.
    Before the first frame of an episode the history is filled with that frame. Threads may share
    a runner: policy calls run one at a time.

    ``act`` waits for the policy, so no action is executed during a call: see ``RealTimeRunner``
    for robots that move on. Clients of ``predict`` say themselves how many actions they have left.

    Args:
        policy: a policy bound to one of its robots.
        execution: how chunks are executed; None: as saved with the policy.

    Raises:
        ConfigError: the execution does not fit the length of the policy's action chunks.
    """

    def __init__(self, policy: BoundPolicy, execution: Execution | None = None) -> None:
        self.policy, self.spec = policy, policy.spec
        self.execution = self.spec.execution if execution is None else execution
        self.queue = ActionQueue(self.spec.action_space, self.spec.horizon, self.execution)
        self._memory: dict[Hashable, _Memory] = {}
        self._uses_previous_plan = policy.uses_previous_plan()
        self._uses_drafts = policy.uses_drafts()
        self._latest = Draft()  # the first draft of new episodes is the last text of any
        # True if new chunks are conditioned on the actions that are executed meanwhile.
        self.conditions = self.execution.mode == "delay_aware" and self.execution.condition
        if self.conditions and not policy.uses_known_actions():
            self.conditions = False
            _log.warning(
                "delay_aware: the action head of this policy does not condition a chunk on the "
                "actions that are executed meanwhile; chunks are joined as they are"
            )
        self._calling = threading.RLock()  # held during policy calls; ``act`` calls ``predict``
        self._lock = threading.RLock()  # of the state; taken inside ``_calling``, never around it

    def reset(self, key: Hashable) -> None:
        """Start a new episode: drop the history, the queued actions and the previous plan."""
        with self._calling, self._lock:
            self._memory.pop(key, None)
            self.queue.reset(key)

    def plan(self, key: Hashable) -> str:
        """The plan of the last policy call; empty: the policy acted without a plan."""
        with self._lock:
            return self._memory.get(key, _Memory()).plan

    def looks(self, key: Hashable) -> bool:
        """True if the next ``act`` reads the images: a call has this frame in its history."""
        return self.queue.left(key) < self.spec.history

    def act(self, keys: Sequence[Hashable], observations: Sequence[Observation]) -> np.ndarray:
        """One control step: actions (B, A) float32 in robot units. A new instruction ends a chunk.

        Raises:
            ValueError: an observation lacks a camera or the state that the policy uses.
        """
        with self._calling:
            rows = dict(zip(keys, observations, strict=True))
            for key, row in rows.items():
                self._end_chunk(key, str(row["instruction"]))
            calls = [key for key in keys if self.queue.needs_chunk(key)]
            queued = {k: self._extended(k, rows[k], self.looks(k)) for k in keys if k not in calls}
            if calls:
                chunks, _ = self.predict(calls, [rows[key] for key in calls])
                for key, chunk in zip(calls, chunks, strict=True):
                    self.queue.push(key, chunk)
            with self._lock:
                self._memory |= queued
            return np.stack([self.queue.pop(key) for key in keys])

    def _end_chunk(self, key: Hashable, instruction: str) -> None:
        """Drop the queued actions of a key if they belong to another instruction."""
        with self._lock:
            last = self._memory.get(key)
            if last is None or last.instruction == instruction:
                return
            if self.queue.left(key):  # the history lacks frames of the steps before
                self._memory[key] = replace(last, images=(), states=())
            self.queue.reset(key)

    def actions_to_execute(self, key: Hashable, chunk: np.ndarray) -> np.ndarray:
        """The actions (N, A) that a client executes next, after those that it had left.

        N is the execution horizon. With temporal ensembling it is 1, and every request is one
        control step of the client.

        Args:
            key: None stands for a client without history, as for ``predict``.
            chunk: (H, A), predicted for this request.

        Raises:
            ValueError: temporal ensembling or the mode delay_aware without a key.
        """
        drops = self.execution.mode == "delay_aware"
        if self.execution.temporal_ensemble is None and not drops:
            return chunk[: self.queue.execution_horizon]
        if key is None:
            raise ValueError("this execution needs a client whose predictions are kept")
        with self._lock:
            self.queue.push(key, chunk, self._memory[key].left if drops else 0)
            return self.queue.rest(key) if drops else self.queue.pop(key)[None]

    def predict(
        self, keys: Sequence[Hashable], observations: Sequence[Observation]
    ) -> tuple[np.ndarray, list[str]]:
        """One policy call for every key: chunks (B, H, A) in robot units and the plans (B texts).

        Chunks are whole. State is updated only if the call succeeds.

        Args:
            keys: None stands for a client without history: nothing is kept for it.
            observations: with the mode delay_aware, ``left`` of an observation is the number of
                actions that the client executes during this call. It is at most the number that it
                has; default: ``execution.delay``, or 0 if that is measured.

        Raises:
            ValueError: as ``act``.
        """
        with self._calling:
            with self._lock:
                pairs = zip(keys, observations, strict=True)
                memory = [self._with_left(k, o, self._extended(k, o)) for k, o in pairs]
                leftovers = [
                    self.queue.leftover(k, m.left) for k, m in zip(keys, memory, strict=True)
                ]
            chunks, plans = self._call(memory, leftovers)
            with self._lock:
                for key, extended, plan in zip(keys, memory, plans, strict=True):
                    if key is not None:
                        self._memory[key] = replace(extended, plan=plan, calls=extended.calls + 1)
            return chunks, plans

    def observe(self, keys: Sequence[Hashable], observations: Sequence[Observation]) -> None:
        """Append observations to the history without a policy call.

        Raises:
            ActionError: the policy's actions are not finite.
            ValueError: as ``act``.
        """
        with self._lock:
            pairs = zip(keys, observations, strict=True)
            self._memory |= {key: self._extended(key, o) for key, o in pairs}

    def predict_observed(
        self, keys: Sequence[Hashable], leftovers: Sequence[Leftover | None]
    ) -> tuple[np.ndarray, list[str]]:
        """As ``predict``, for the last ``observe`` of every key. It may be called meanwhile.

        Args:
            leftovers: see ``BasePolicy.predict``.
        """
        with self._calling:
            with self._lock:
                memory = [self._memory[key] for key in keys]
            chunks, plans = self._call(memory, leftovers)
            with self._lock:
                for key, seen, plan in zip(keys, memory, plans, strict=True):
                    now = self._memory[key]
                    plan = plan if now.instruction == seen.instruction else ""
                    self._memory[key] = replace(now, plan=plan, calls=now.calls + 1)
            return chunks, plans

    def _call(
        self, memory: Sequence[_Memory], leftovers: Sequence[Leftover | None]
    ) -> tuple[np.ndarray, list[str]]:
        """One policy call; ActionError if an action is not finite."""
        optional: dict[str, Any] = {}
        if self.spec.state_dim:
            optional["state_BTP"] = torch.stack([torch.cat(m.states) for m in memory])
        if self._uses_previous_plan:
            optional["previous_plans"] = [m.plan for m in memory]
        if self.policy.samples():
            optional["row_seeds"] = [
                row_seed(m.instruction, m.calls, (*m.images[-1:], *m.states[-1:])) for m in memory
            ]
        if self._uses_drafts:
            optional["drafts"] = drafts = [m.draft or Draft() for m in memory]
            self._latest = drafts[-1]
        if self.conditions and any(leftovers):
            optional["leftovers"] = leftovers
        images_BVTCHW = torch.stack([torch.cat(m.images, 1) for m in memory])
        texts = [m.instruction for m in memory]
        with evaluation_mode(getattr(self.policy, "policy", None)):
            chunks, plans = self.policy.predict(images_BVTCHW, texts, **optional)
        return finite(self.spec, chunks), plans

    def _with_left(self, key: Hashable, observation: Observation, memory: _Memory) -> _Memory:
        """The memory with the actions that the client executes during this call."""
        if self.execution.mode != "delay_aware":
            return memory
        left = int(observation.get("left", self.execution.delay or 0))
        return replace(memory, left=max(0, min(left, self.queue.left(key))))

    def _extended(self, key: Hashable, observation: Observation, looks: bool = True) -> _Memory:
        """The memory of ``key`` with this observation, without its images if not ``looks``."""
        history, last = self.spec.history, self._memory.get(key, _Memory())
        images, states = last.images, last.states
        if looks:
            image = to_images(observation, self.spec)
            images = (*(images or (image,) * (history - 1)), image)[-history:]
        if looks and self.spec.state_dim:
            state = to_state(observation, self.spec.state_dim)
            states = (*(states or (state,) * (history - 1)), state)[-history:]
        instruction = str(observation["instruction"])
        # a plan belongs to the instruction that it was made for
        plan = last.plan if last.instruction == instruction else ""
        draft = last.draft or Draft(
            self.queue.execution_horizon, self._latest.before, self._latest.symbols
        )
        return _Memory(images, states, instruction, plan, last.calls, draft=draft)
