"""One policy for many clients: requests are checked and mapped to the policy's names and sizes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from vla.inference.runner import Observation, PolicyRunner
from vla.policies.bound import BoundPolicy
from vla.policies.observations import camera_image

MAX_TEXT = 2000  # characters of an instruction


class RequestError(ValueError):
    """An invalid request. The message says what was expected and is sent to the client."""


class PolicyService:
    """Maps requests to observations of the policy, and holds the runner that executes them.

    Args:
        policy: a policy bound to one of its robots.
        cameras: camera of the policy -> the client's name, where the two differ.
        state: the client's names whose numbers form the state, in this order.

    Raises:
        ValueError: ``cameras`` names a camera that the policy does not have.
    """

    def __init__(
        self,
        policy: BoundPolicy,
        cameras: Mapping[str, str] | None = None,
        state: Sequence[str] = ("state",),
    ) -> None:
        self.policy, self.spec = policy, policy.spec
        unknown = [c for c in cameras or {} if c not in self.spec.cameras]
        if unknown:
            raise ValueError(
                f"--camera {unknown[0]}=...: the policy has no such camera; "
                f"choices: {', '.join(self.spec.cameras)}"
            )
        self.cameras, self.state = dict(cameras or {}), list(state)
        self.runner = PolicyRunner(policy)  # one policy call at a time; safe to use from threads

    def about(self) -> dict[str, Any]:
        """What a client can check before it moves a robot: cameras, sizes, actions and units."""
        spec, space = self.spec, self.spec.action_space
        return {
            "robot": self.policy.robot,
            "cameras": list(spec.cameras),
            "image_size": list(spec.image_size),
            "history": spec.history,
            "horizon": spec.horizon,
            "state_dim": spec.state_dim,
            "action_names": list(space.names),
            "action_units": list(space.units),
            "action_low": list(space.low),
            "action_high": list(space.high),
            "rate_hz": space.rate_hz,
        }

    def observation(
        self, fields: Mapping[str, Any], instruction: Any, client: Hashable | None
    ) -> Observation:
        """The observation that ``runner.predict`` takes, from a request.

        Args:
            fields: flat names ("observation/image") to arrays.
            client: key of the connection whose history is used; None for independent requests.

        Raises:
            RequestError: an image, the state or the instruction is missing or invalid, or the
                policy needs history and there is no connection.
        """
        if not isinstance(instruction, str) or not 0 < len(instruction.strip()) <= MAX_TEXT:
            raise RequestError(
                f"the instruction must be a text of 1 to {MAX_TEXT} characters, "
                f"got {type(instruction).__name__}"
            )
        if client is None and self.spec.history > 1:
            raise RequestError(
                f"this policy needs frame history ({self.spec.history} frames); "
                "use the websocket API"
            )
        images = {camera: self._image(fields, camera) for camera in self.spec.cameras}
        state = {"state": self._state(fields)} if self.spec.state_dim else {}
        return {"images": images, "instruction": instruction, **state}

    def blank_observation(self) -> Observation:
        """Black images and a zero state, for the first call, which is slow."""
        blank = np.zeros((*self.spec.image_size, 3), np.uint8)
        state = np.zeros(self.spec.state_dim, np.float32)
        images = dict.fromkeys(self.spec.cameras, blank)
        return {"images": images, "state": state, "instruction": "wait"}

    def _image(self, fields: Mapping[str, Any], camera: str) -> np.ndarray:
        """(H, W, 3) uint8 of the policy's size."""
        images = {k: v for k, v in fields.items() if isinstance(v, np.ndarray) and v.ndim == 3}
        value = _named(images, self.cameras.get(camera, camera))
        # a single image needs no name
        only_one = len(images) == len(self.spec.cameras) == 1 and camera not in self.cameras
        if value is None and only_one:
            value = next(iter(images.values()))
        if value is None:
            raise RequestError(
                f"no image for camera {camera!r}; the request has {', '.join(images) or 'none'}; "
                f"start the server with --camera {camera}=NAME"
            )
        if value.shape[-1] != 3 and value.shape[0] == 3:
            value = value.transpose(1, 2, 0)
        try:
            return camera_image(value, camera, self.spec.image_size)
        except ValueError as error:
            raise RequestError(str(error)) from error

    def _state(self, fields: Mapping[str, Any]) -> np.ndarray:
        """(P,) float32: the numbers of ``self.state`` joined in order."""
        parts = {name: _named(fields, name) for name in self.state}
        missing = [name for name, part in parts.items() if part is None]
        if missing:
            raise RequestError(
                f"no {missing[0]!r} in the request, which has {', '.join(fields)}; "
                "start the server with --state NAME,NAME"
            )
        try:
            state = np.concatenate([np.asarray(p, np.float32).reshape(-1) for p in parts.values()])
        except (TypeError, ValueError) as error:
            raise RequestError(f"the state must be numbers ({error})") from error
        if len(state) != self.spec.state_dim or not np.isfinite(state).all():
            raise RequestError(
                f"the policy needs a state of {self.spec.state_dim} finite numbers, "
                f"got {len(state)}"
            )
        return state


def _named(fields: Mapping[str, Any], name: str) -> Any:
    """A field by its full name, or by the last part of a slash-separated one if it is unique."""
    if name in fields:
        return fields[name]
    found = [k for k in fields if k.rsplit("/", 1)[-1] == name]
    return fields[found[0]] if len(found) == 1 else None
