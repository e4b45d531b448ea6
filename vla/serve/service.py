"""One policy for many clients: requests are checked and mapped to the policy's names and sizes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from vla.inference.runner import Observation, PolicyRunner
from vla.policies.bound import BoundPolicy
from vla.policies.execution import Execution
from vla.policies.names import image_fields, joined_state, match_cameras
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
        execution: see ``PolicyRunner``.

    Raises:
        ValueError: ``cameras`` names a camera that the policy does not have, or the execution does
            not fit the policy.
    """

    def __init__(
        self,
        policy: BoundPolicy,
        cameras: Mapping[str, str] | None = None,
        state: Sequence[str] = ("state",),
        execution: Execution | None = None,
    ) -> None:
        self.policy, self.spec = policy, policy.spec
        unknown = [c for c in cameras or {} if c not in self.spec.cameras]
        if unknown:
            raise ValueError(
                f"--camera {unknown[0]}=...: the policy has no such camera; "
                f"choices: {', '.join(self.spec.cameras)}"
            )
        self.cameras, self.state = dict(cameras or {}), list(state)
        self.runner = PolicyRunner(policy, execution)  # safe to use from threads

    def about(self) -> dict[str, Any]:
        """What a client can check before it moves a robot: cameras, sizes, actions and units."""
        spec, space = self.spec, self.spec.action_space
        return {
            "robot": self.policy.robot,
            "cameras": list(spec.cameras),
            "image_size": list(spec.image_size),
            "image_fit": spec.image_fit,
            "history": spec.history,
            "horizon": spec.horizon,
            "execution_horizon": self.runner.queue.execution_horizon,  # actions of a reply
            "temporal_ensemble": self.runner.execution.temporal_ensemble,
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
                policy needs history or temporal ensembling and there is no connection.
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
        if client is None and self.runner.execution.temporal_ensemble is not None:
            raise RequestError(
                "this server averages the predictions of earlier requests (temporal ensembling); "
                "use the websocket API"
            )
        images = self._images(fields)
        state = {"state": self._state(fields)} if self.spec.state_dim else {}
        return {"images": images, "instruction": instruction, **state}

    def blank_observation(self) -> Observation:
        """Black images and a zero state, for the first call, which is slow."""
        height, width = (side or 224 for side in self.spec.image_size)  # 0: any size
        blank = np.zeros((height, width, 3), np.uint8)
        state = np.zeros(self.spec.state_dim, np.float32)
        images = dict.fromkeys(self.spec.cameras, blank)
        return {"images": images, "state": state, "instruction": "wait"}

    def _images(self, fields: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """{camera: (H, W, 3) uint8} of the policy's size."""
        how = "start the server with --camera {camera}=NAME"
        try:
            fields = {k: _as_array(v) for k, v in fields.items()}
            given = image_fields(fields)
            names = match_cameras(self.spec.cameras, given, self.cameras, how, "the request")
            return {c: camera_image(fields[k], c, self.spec) for c, k in names.items()}
        except ValueError as error:
            raise RequestError(str(error)) from error

    def _state(self, fields: Mapping[str, Any]) -> np.ndarray:
        """(P,) float32: the numbers of ``self.state`` joined in order."""
        try:
            how = "start the server with --state NAME,NAME"
            state = joined_state(fields, self.state, how, "the request")
        except ValueError as error:
            raise RequestError(str(error)) from error
        if len(state) != self.spec.state_dim:
            raise RequestError(
                f"the policy needs a state of {self.spec.state_dim} finite numbers, "
                f"got {len(state)}"
            )
        return state


def _as_array(value: Any) -> Any:
    """Nested lists, as JSON has them, as an array; other values as they are."""
    is_nested = isinstance(value, list) and value and isinstance(value[0], list)
    return np.asarray(value) if is_nested else value
