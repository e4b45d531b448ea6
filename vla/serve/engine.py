"""One policy, many clients: observations by any names to actions in robot units, checked against the policy's contract."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from vla.chunks import LastPlan
from vla.module import BoundPolicy

MAX_SIDE = 4096  # px of a picture that is accepted
MAX_TEXT = 2000  # characters of an instruction


class RequestError(ValueError):
    """What a client sent cannot be answered; the message says what was expected."""


@dataclass
class Session:
    """One client's past: pictures and states of the frames before, for policies that look at several; the last plan, for those that hold it."""

    images: list[np.ndarray] = field(default_factory=list)
    states: list[np.ndarray] = field(default_factory=list)
    plan: LastPlan = field(default_factory=LastPlan)


class Engine:
    """Answers one request at a time.

    Args:
        cameras: the policy's camera -> the client's name for it, where they differ. state: the client's names whose numbers, in this order, are the state.
    """

    def __init__(self, policy: BoundPolicy, cameras: Mapping[str, str] | None = None, state: Sequence[str] = ("state",)) -> None:
        self.policy, self.contract = policy, policy.contract
        unknown = [c for c in cameras or {} if c not in self.contract.cameras]
        if unknown:
            raise ValueError(f"--camera {unknown[0]}=...: the policy's cameras are {', '.join(self.contract.cameras)}")
        self.cameras, self.state = dict(cameras or {}), list(state)
        self._lock = threading.Lock()

    def about(self) -> dict[str, Any]:
        """What a client may want to check before it moves a robot."""
        c = self.contract
        return {
            "robot": self.policy.robot, "cameras": list(c.cameras), "image_size": list(c.image_size), "history": c.history, "horizon": c.horizon,
            "state_dim": c.state_dim, "action_names": list(c.action_space.names), "action_units": list(c.action_space.units),
            "action_low": list(c.action_space.low), "action_high": list(c.action_space.high), "rate_hz": c.action_space.rate_hz,
        }  # fmt: skip

    def infer(self, observation: Mapping[str, Any], instruction: Any, session: Session | None) -> tuple[np.ndarray, float]:
        """Flat names to arrays; returns actions (H, A) float32 in robot units and the milliseconds it took. session: None where the protocol has none.

        Raises:
            RequestError: a picture, the state or the instruction is missing or of a wrong kind, or the policy needs a past and there is none.
        """
        if not isinstance(instruction, str) or not instruction.strip() or len(instruction) > MAX_TEXT:
            raise RequestError(f"the instruction must be a text of 1 to {MAX_TEXT} characters, got {type(instruction).__name__}")
        history = self.contract.history
        if session is None and history > 1:
            raise RequestError(f"this policy looks at {history} frames; use a protocol with a connection of its own (websocket)")
        past = session or Session()
        frame = np.stack([self._picture(observation, camera) for camera in self.contract.cameras])  # V C H W
        images = [*(past.images or [frame] * (history - 1)), frame][-history:]
        felt: dict[str, Any] = {}
        states: list[np.ndarray] = []
        if self.contract.state_dim:
            now = self._state(observation)
            states = [*(past.states or [now] * (history - 1)), now][-history:]
            felt = {"state_BTP": torch.from_numpy(np.stack(states))[None]}
        start = time.perf_counter()
        with self._lock:
            if self.policy.holds_plan():
                felt["before"] = [past.plan.before(instruction)]
            actions, plans = self.policy.predict(torch.from_numpy(np.stack(images, 1))[None], [instruction], **felt)
        past.images, past.states = images, states  # only a request that was answered is part of the past
        past.plan = LastPlan(instruction, plans[0])
        return actions[0], 1000 * (time.perf_counter() - start)

    def _named(self, observation: Mapping[str, Any], name: str) -> Any:
        """By the full name, or by the last part of a slash-separated one."""
        if name in observation:
            return observation[name]
        found = [k for k in observation if k.rsplit("/", 1)[-1] == name]
        return observation[found[0]] if len(found) == 1 else None

    def _picture(self, observation: Mapping[str, Any], camera: str) -> np.ndarray:
        """(3, H, W) uint8 of the policy's size."""
        pictures = {k: v for k, v in observation.items() if isinstance(v, np.ndarray) and v.ndim == 3}
        value = self._named(pictures, self.cameras.get(camera, camera))
        if value is None and len(pictures) == 1 and len(self.contract.cameras) == 1 and camera not in self.cameras:
            value = next(iter(pictures.values()))
        if value is None:
            raise RequestError(
                f"no picture for camera {camera!r}; the observation has {', '.join(pictures) or 'none'}; "
                f"tell the server which it is: --camera {camera}=NAME"
            )
        if value.dtype != np.uint8 or 3 not in (value.shape[0], value.shape[-1]) or max(value.shape) > MAX_SIDE:
            raise RequestError(
                f"camera {camera!r}: expected uint8 (H, W, 3) or (3, H, W) up to {MAX_SIDE} px, got {value.dtype} {value.shape}"
            )
        rows = value if value.shape[-1] == 3 else value.transpose(1, 2, 0)
        height, width = self.contract.image_size
        if (height, width) != rows.shape[:2] and height > 0:
            rows = np.asarray(Image.fromarray(np.ascontiguousarray(rows)).resize((width, height), Image.Resampling.LANCZOS))
        return np.ascontiguousarray(rows.transpose(2, 0, 1))

    def _state(self, observation: Mapping[str, Any]) -> np.ndarray:
        parts = [self._named(observation, name) for name in self.state]
        missing = [n for n, p in zip(self.state, parts, strict=True) if p is None]
        if missing:
            raise RequestError(
                f"no {missing[0]!r} in the observation ({', '.join(observation)}); tell the server: --state NAME,NAME"
            )
        try:
            state = np.concatenate([np.asarray(p, np.float32).reshape(-1) for p in parts])
        except (TypeError, ValueError) as error:
            raise RequestError(f"the state is not made of numbers ({error})") from error
        if len(state) != self.contract.state_dim or not np.isfinite(state).all():
            raise RequestError(f"the policy looks at a state of {self.contract.state_dim} finite numbers, got {len(state)}")
        return state
