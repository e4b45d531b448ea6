"""One policy for many clients: requests are checked and mapped to the policy's names and sizes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import numpy as np

from vla.errors import ActionError
from vla.inference.inputs import Observation, blank_observation
from vla.inference.runner import PolicyRunner
from vla.models.decoders.text import encode
from vla.models.prompts import robot_prompt
from vla.policies.bound import BoundPolicy
from vla.policies.execution import Execution
from vla.policies.names import check_names, image_fields, joined_state, match_cameras
from vla.policies.observations import camera_image
from vla.serve.batching import Answer, Batcher, Batching
from vla.serve.errors import ActionRefused
from vla.serve.errors import RequestError as RequestError  # protocols import it from here
from vla.serve.handshake import interface
from vla.serve.limits import Limits
from vla.serve.sessions import Sessions
from vla.serve.threads import DecodingThreads

T = TypeVar("T")
MAX_TEXT = 2000  # characters of an instruction


class PolicyService:
    """Maps requests to observations of the policy, and holds the runner that executes them.

    Args:
        policy: a policy bound to one of its robots.
        cameras: camera of the policy -> the client's name, where the two differ.
        state: the client's names whose numbers form the state, in this order.
        execution: see ``PolicyRunner``.
        batching: see ``Batcher``.
        session_timeout: s without a request after which the state of a client is dropped.

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
        batching: Batching | None = None,
        session_timeout: float = Limits.session_timeout,
    ) -> None:
        self.policy, self.spec = policy, policy.spec
        check_names(cameras or {}, self.spec.cameras)
        self.cameras, self.state = dict(cameras or {}), list(state)
        self.runner = PolicyRunner(policy, execution)  # safe to use from threads
        self.batcher = Batcher(self.runner, batching)
        self.sessions = Sessions(self.batcher.reset, session_timeout)
        self.threads = DecodingThreads()

    async def off_loop(self, function: Callable[..., T], *args: Any, size: int = 0) -> T:
        """The result of ``function``, called in a thread; the event loop serves others meanwhile.

        Args:
            size: bytes of the message that the function decodes.
        """
        return await self.threads.call(function, *args, size=size)

    async def answer(
        self,
        fields: Mapping[str, Any],
        instruction: Any,
        client: Hashable | None = None,
        size: int = 0,
        one_step: bool = False,
    ) -> Answer:
        """The answer to one request, which shares its policy call with others that wait.

        Args:
            fields, instruction, client: as for ``observation``. A client whose state is kept has
                to be dropped at its end with ``reset``.
            size: bytes of the message.
            one_step: the answer is one action (1, A): the client sends an observation at every
                control step, and the runner keeps the rest of the chunk.

        Raises:
            RequestError: as for ``observation``, or the policy refuses the observation.
            ActionRefused: the policy's actions are invalid.
            Busy: too many clients, or the server ends.
        """
        seen = await self.off_loop(self.observation, fields, instruction, client, size=size)
        try:
            return await asyncio.wrap_future(self._queue(client, seen, one_step))
        except RequestError:
            raise
        except ActionError as error:
            raise ActionRefused(str(error)) from error
        except ValueError as error:  # of the policy
            raise RequestError(str(error)) from error

    def submit(
        self, fields: Mapping[str, Any], instruction: Any, client: Hashable | None = None
    ) -> Future[Answer]:
        """As ``answer``, for threads: checks the request in this thread, and waits for no other."""
        return self._queue(client, self.observation(fields, instruction, client))

    def _queue(
        self, client: Hashable | None, observation: Observation, one_step: bool = False
    ) -> Future[Answer]:
        if client is not None:
            self.sessions.use(client)
        return self.batcher.submit(client, observation, one_step)

    def reset(self, client: Hashable) -> None:
        """Begin a new episode of a client, or drop its state at its end; returns at once."""
        self.sessions.end(client)

    @property
    def is_busy(self) -> bool:
        """True while a thread of the service works."""
        return self.batcher.is_busy or self.threads.is_busy

    def close(self) -> None:
        """End the threads; a policy call that runs ends by itself."""
        self.batcher.close()
        self.threads.close()

    def about(self) -> dict[str, Any]:
        """What a client can check before it moves a robot: cameras, sizes, actions and units."""
        return interface(self.spec, self.policy.robot, self.runner.execution) | {
            "execution_horizon": self.runner.queue.execution_horizon,
            "conditions_on_left_actions": self.runner.conditions,
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
        self._check_length(instruction)
        if client is None and self.spec.history > 1:
            raise RequestError(
                f"this policy needs frame history ({self.spec.history} frames); "
                "use the websocket API"
            )
        execution = self.runner.execution
        if client is None and execution.temporal_ensemble is not None:
            raise RequestError(
                "this server averages the predictions of earlier requests (temporal ensembling); "
                "use the websocket API"
            )
        if client is None and execution.mode == "delay_aware":
            raise RequestError(
                "this server continues the actions of earlier requests (mode delay_aware); "
                "use the websocket API"
            )
        left = {}
        if execution.mode == "delay_aware" and "left" in fields:
            left = {"left": _actions_left(fields["left"], self.runner.queue.execution_horizon)}
        images = self._images(fields)
        state = {"state": self._state(fields)} if self.spec.state_dim else {}
        return {"images": images, "instruction": instruction, **state, **left}

    def _check_length(self, instruction: str) -> None:
        """RequestError if the decoder's table of positions has no room for the prompt."""
        decoder: Any = getattr(getattr(self.policy, "policy", None), "decoder", None)
        most = getattr(decoder, "max_text_tokens", None)
        if most is None:
            return
        tokens = len(encode(decoder.tokenizer, robot_prompt(instruction)))
        if tokens >= most:
            raise RequestError(
                f"the prompt with this instruction has {tokens} tokens, and the policy's context "
                f"is {most} for prompt and answer; send a shorter instruction"
            )

    def blank_observation(self) -> Observation:
        """See ``vla.inference.inputs.blank_observation``."""
        return blank_observation(self.spec)

    def _images(self, fields: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """{camera: (H, W, 3) uint8} of the policy's size."""
        how = "start the server with --camera {camera}=NAME"
        try:
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


def _actions_left(value: Any, most: int) -> int:
    """The field ``left`` of a request: actions that the client still executes during the call.

    Raises:
        RequestError: not a whole number from 0 to ``most``.
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not 0 <= value <= most:
        shown = value if whole else type(value).__name__
        raise RequestError(f"left: expected a whole number from 0 to {most}, got {shown}")
    return int(value)
