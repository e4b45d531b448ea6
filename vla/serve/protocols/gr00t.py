"""The ZMQ protocol of GR00T: REQ clients, msgpack messages, a port of its own."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import signal
import socket
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

from vla.errors import ConfigError
from vla.serve.access import KEY
from vla.serve.limits import Budget
from vla.serve.protocols.arrays import fields_of, from_npy, to_npy
from vla.serve.protocols.messages import read_msgpack
from vla.serve.service import PolicyService, RequestError

log = logging.getLogger(__name__)
MAX_CLIENTS = 256  # whose history and plan are kept; the longest silent one is dropped
MAX_PENDING = 64  # messages that are answered at the same time
_TASK = "annotation.human.task_description"  # GR00T's name of the instruction


class GrootServer:
    """Endpoints ping, get_action, get_modality_config, reset and kill of one policy.

    A socket of a client is one session: ``reset`` begins a new episode of it. An invalid request
    gets ``{"error": reason}``. If the environment variable ``VLA_API_KEY`` is set, requests need
    its value as ``api_token``.

    Args:
        service: shared with the other protocols.
        kill: serve the endpoint ``kill``, which ends the program.
        max_bytes: of one message.
        budget: counts the bytes of messages.

    Raises:
        ConfigError: ``kill`` without a key, or pyzmq is not installed.
    """

    def __init__(self, service: PolicyService, kill: bool, max_bytes: int, budget: Budget) -> None:
        key = os.environ.get(KEY, "")
        if kill and not key:
            raise ConfigError(f"--zmq-kill: it needs a key; set the environment variable {KEY}")
        try:
            import zmq.asyncio
        except ImportError as error:
            raise ConfigError(f"--zmq-port: {error}; run: pip install 'vla[zmq]'") from error
        self.service, self.key, self.kill, self.budget = service, key, kill, budget
        self._clients: OrderedDict[bytes, None] = OrderedDict()
        self._socket = zmq.asyncio.Context.instance().socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.IPV6, 1)
        self._socket.setsockopt(zmq.MAXMSGSIZE, max_bytes)
        self._socket.setsockopt(zmq.RCVHWM, 1)  # waiting messages of one client
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(MAX_PENDING)

    def bind(self, host: str, port: int) -> None:
        """Listen.

        Raises:
            ConfigError: the address is in use or does not exist.
        """
        import zmq

        try:
            address = f"[{host}]" if ":" in host else socket.gethostbyname(host)
            self._socket.bind(f"tcp://{address}:{port}")
        except (OSError, zmq.ZMQError) as error:
            raise ConfigError(f"--zmq-port {port} on {host}: {error}; choose another") from error

    async def run(self) -> None:
        """Answer messages until cancelled."""
        try:
            while True:
                await self._room.acquire()
                sender, *frames = await self._socket.recv_multipart()
                task = asyncio.create_task(self._handle(sender, frames))
                self._tasks.add(task)  # the loop keeps weak references only
                task.add_done_callback(self._ended)
        finally:
            self._socket.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.release()

    async def _handle(self, sender: bytes, frames: list[bytes]) -> None:
        if len(frames) == 2 and not frames[0]:  # others are no REQ clients
            await self._socket.send_multipart([sender, b"", await self.reply(sender, frames[1])])

    async def reply(self, sender: bytes, message: bytes) -> bytes:
        """The packed reply to one message of the client ``sender``."""
        size = len(message)
        try:
            self.budget.take(size)
            try:
                found = await self._found(sender, message)
            finally:
                self.budget.release(size)
        except RequestError as error:
            found = {"error": str(error)}
        except Exception as error:  # a REQ client waits for a reply
            log.exception("GR00T request failed")
            found = {"error": f"the server failed: {type(error).__name__}"}
        return msgpack.packb(found, default=_to_msgpack, use_bin_type=True)

    async def _found(self, sender: bytes, message: bytes) -> Any:
        size = len(message)
        request = await self.service.off_loop(read_msgpack, message, _from_msgpack, size=size)
        endpoint, data, token = (request.get(k) for k in ("endpoint", "data", "api_token"))
        given = token.encode() if isinstance(token, str) else b""
        if self.key and not hmac.compare_digest(given, self.key.encode()):
            raise RequestError("Unauthorized: wrong or no api_token")
        if endpoint == "ping":
            return {"status": "ok", "message": "Server is running"}
        if endpoint == "get_modality_config":
            return self._modality_config()
        if endpoint == "reset":
            self.service.reset((self, sender))
            return {}
        if endpoint == "kill" and self.kill:
            signal.raise_signal(signal.SIGTERM)
            return {"status": "ok", "message": "The server ends"}
        if endpoint == "get_action":
            return await self._action(sender, data, size)
        raise RequestError(
            f"endpoint {ascii(endpoint)[:50]}: expected ping, get_action, get_modality_config or "
            "reset"
        )

    async def _action(self, sender: bytes, data: Any, size: int) -> Any:
        if not isinstance(data, Mapping):
            raise RequestError("get_action: expected a mapping as data")
        nested = data.get("observation")
        seen = nested if isinstance(nested, Mapping) else data  # GR00T N1.5 has no such level
        fields, text = await self.service.off_loop(observation_fields, dict(seen), size=size)
        self._remember(sender)
        answer = await self.service.answer(fields, text, (self, sender), size)
        names = self.service.spec.action_space.names
        prefix = "" if "video" in seen else "action."
        if seen is data:
            return {f"{prefix}{n}": answer.actions[:, k, None] for k, n in enumerate(names)}
        actions = {f"{prefix}{n}": answer.actions[None, :, k, None] for k, n in enumerate(names)}
        return [actions, {"plan": answer.plan}]

    def _remember(self, sender: bytes) -> None:
        """Note that the client is alive; drop the longest silent one if there are too many."""
        self._clients[sender] = None
        self._clients.move_to_end(sender)
        if len(self._clients) > MAX_CLIENTS:
            silent, _ = self._clients.popitem(last=False)
            self.service.reset((self, silent))

    def _modality_config(self) -> dict[str, Any]:
        spec, about = self.service.spec, self.service.about()
        steps = list(range(about["execution_horizon"]))
        config = {
            "video": ([0], list(spec.cameras)),
            "state": ([0], self.service.state if spec.state_dim else []),
            "action": (steps, list(spec.action_space.names)),
            "language": ([0], [_TASK]),
        }
        return {
            name: {
                "__ModalityConfig_class__": True,
                "as_json": json.dumps({"delta_indices": indices, "modality_keys": keys}),
            }
            for name, (indices, keys) in config.items()
        }


def observation_fields(observation: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Images (H, W, C) and states (P,) by flat names, and the instruction.

    Names are ``video/NAME`` or ``video.NAME``, likewise with ``state``, and ``language`` or
    ``annotation``. Images are (B, T, H, W, C) or (T, H, W, C), states (B, T, P) or (T, P); B is 1,
    and of T frames the last is taken.

    Raises:
        RequestError: more than one observation, or not a mapping of such fields.
    """
    fields, text = {}, None
    for name, value in fields_of(observation).items():
        kind = name.replace(".", "/").partition("/")[0]
        if kind in ("language", "annotation"):
            while isinstance(value, list) and len(value) == 1:
                value = value[0]
            text = value
        elif kind in ("video", "state") and isinstance(value, np.ndarray):
            wanted = 3 if kind == "video" else 1
            if value.ndim == wanted + 2 and len(value) > 1:
                raise RequestError(f"{name}: a batch of {len(value)}; send one observation")
            while value.ndim > wanted:
                value = value[-1]
            fields[name] = value
    states = [name for name in fields if name.startswith("state")]
    if len(states) == 1:  # several need --state, which gives their order
        fields["state"] = fields[states[0]]
    return fields, text


def _from_msgpack(value: dict[Any, Any]) -> Any:
    return from_npy(value.get("as_npy")) if "__ndarray_class__" in value else value


def _to_msgpack(value: np.ndarray) -> dict[str, Any]:
    return {"__ndarray_class__": True, "as_npy": to_npy(np.ascontiguousarray(value))}
