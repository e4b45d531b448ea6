"""A client of ``vla serve``: numpy in, numpy out. It needs numpy, msgpack and websockets only.

The file imports nothing else, so it can be copied to a robot's computer.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import msgpack
import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect


class Refused(ValueError):
    """The server refuses the observation. The message is the server's reason."""


class PolicyClient:
    """One robot's connection to a policy server, by openpi's websocket protocol.

    A lost connection is opened again at the next call, or within the same call while its time
    lasts. The server then begins a new frame history.

    Args:
        url: for example "ws://127.0.0.1:8000".
        api_key: the server's ``VLA_API_KEY``, if it has one.
        timeout: seconds for one call, reconnection included.

    Raises:
        ValueError: the address is not one of a websocket.
        TimeoutError: the server does not answer in time.
        ConnectionError: the server refuses the connection, for example because of the key.
    """

    def __init__(
        self, url: str = "ws://127.0.0.1:8000", api_key: str | None = None, timeout: float = 10.0
    ) -> None:
        _check_address(url)
        self.url, self.timeout = url, timeout
        self._headers = {"Authorization": f"Api-Key {api_key}"} if api_key else {}
        self._socket: ClientConnection | None = None
        self._open = ExitStack()  # closes the connection
        self.about: dict[str, Any] = {}  # the policy's description, see ``GET /about``
        self._within_time(lambda socket, left: None)

    def act(
        self, images: Mapping[str, np.ndarray], instruction: str, state: Any = None
    ) -> np.ndarray:
        """The actions (N, A) to execute before the next call, float32 in robot units.

        Args:
            images: camera -> (H, W, 3) uint8 RGB.
            instruction: for example "pick up the apple".
            state: (P,) numbers, if the policy needs a state (``about["state_dim"]``).

        Raises:
            Refused: the server refuses the observation.
            TimeoutError, ConnectionError: as for the constructor.
        """
        request: dict[str, Any] = {**images, "prompt": instruction}
        if state is not None:
            request["state"] = np.asarray(state, np.float32)
        return self.infer(request)["actions"]

    def infer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The whole reply to one request: actions, plan and times.

        Raises:
            Refused, TimeoutError, ConnectionError: as for ``act``.
        """
        message = pack(dict(request))

        def ask(socket: ClientConnection, left: float) -> str | bytes:
            socket.send(message)
            return socket.recv(left)

        reply = self._within_time(ask)
        if isinstance(reply, str):
            raise Refused(reply)
        return unpack(reply)

    def reset(self) -> None:
        """Begin a new episode: the server drops the frame history and the previous plan."""
        self.close()
        self._within_time(lambda socket, left: None)

    def close(self) -> None:
        """End the connection."""
        self._socket = None
        self._open.close()

    def __enter__(self) -> PolicyClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _within_time(self, use: Any) -> Any:
        """``use(socket, seconds left)``, repeated on a new connection if the old one is lost."""
        end, wait = time.monotonic() + self.timeout, 0.05
        while True:
            try:
                if self._socket is None:
                    self._socket = self._connected(end - time.monotonic())
                return use(self._socket, end - time.monotonic())
            except (OSError, WebSocketException) as error:  # TimeoutError is an OSError
                self.close()
                status = getattr(getattr(error, "response", None), "status_code", None)
                if status is not None:
                    raise ConnectionError(f"{self.url}: HTTP status {status}; {error}") from error
                if time.monotonic() + wait >= end:
                    raise TimeoutError(
                        f"{self.url}: no answer within {self.timeout:g} s ({error})"
                    ) from error
                time.sleep(wait)
                wait = min(2 * wait, 1.0)

    def _connected(self, left: float) -> ClientConnection:
        connection = connect(
            self.url,
            additional_headers=self._headers,
            compression=None,
            max_size=None,
            open_timeout=left,
            close_timeout=1,
            ping_interval=None,
        )
        socket = self._open.enter_context(connection)
        self.about = unpack(socket.recv(left))
        return socket


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0
    except ValueError:  # the port is no number or too large
        fits = False
    if not fits:
        raise ValueError(f"{url}: expected ws://HOST:PORT, for example ws://127.0.0.1:8000")


class ActingClient:
    """A robot that executes the actions of the last reply while the next one is computed.

    It asks when as many actions are left as the robot executes during a request: the largest of
    the last 10 measured requests. A server with ``--execution-mode delay_aware`` continues these
    actions; a synchronous one answers a robot that waits.

    Args:
        client: a connection, used by this object alone.
    """

    def __init__(self, client: PolicyClient) -> None:
        self.client, self._thread = client, ThreadPoolExecutor(1)
        self._actions: deque[np.ndarray] = deque()
        self._recent: deque[int] = deque([client.about.get("delay_steps", 0)], maxlen=10)
        self._request: Future[dict[str, Any]] | None = None
        self._age = 0  # control steps since the request

    def step(self, request: Mapping[str, Any]) -> np.ndarray | None:
        """The action (A,) of this control step; None: there is none, hold still.

        Args:
            request: as for ``PolicyClient.infer``; call it once in every control step.

        Raises:
            Refused, TimeoutError, ConnectionError: as for ``PolicyClient.act``, for an earlier
                request.
        """
        self._age += 1
        if self._request is not None and self._request.done():
            reply, self._request = self._request.result(), None
            if self.client.about["execution_mode"] == "asynchronous":
                self._actions.clear()  # a chunk begins with its first action
            self._actions.extend(reply["actions"])
            self._recent.append(self._age)
        waits = self.client.about["execution_mode"] == "synchronous"
        most = 0 if waits else self.client.about["execution_horizon"]
        if self._request is None and len(self._actions) <= min(most, max(self._recent)):
            asked = {**request, "left": len(self._actions)}
            self._request, self._age = self._thread.submit(self.client.infer, asked), 0
        return self._actions.popleft() if self._actions else None

    def reset(self) -> None:
        """Begin a new episode: wait for a request that is on its way, and drop all actions."""
        if self._request is not None:
            self._request.exception()
        self._request, self._age = None, 0
        self._actions.clear()
        self.client.reset()


def pack(value: dict[str, Any]) -> bytes:
    """One msgpack message with numpy arrays and numbers, as openpi's client writes it."""
    return msgpack.packb(value, default=_to_msgpack, use_bin_type=True)


def unpack(message: str | bytes) -> dict[str, Any]:
    """Inverse of ``pack``, for messages of a trusted server.

    Raises:
        Refused: a text, which is the server's reason.
    """
    if isinstance(message, str):
        raise Refused(message)
    return msgpack.unpackb(message, object_hook=_from_msgpack)


def _to_msgpack(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {
            b"__ndarray__": True,
            b"data": value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": value.shape,
        }
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"cannot send a {type(value).__name__}")


def _from_msgpack(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" in value:
        array = np.frombuffer(value[b"data"], np.dtype(value[b"dtype"]))
        return array.reshape(value[b"shape"]).copy()
    return value
