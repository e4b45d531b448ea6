"""The websocket protocol of openpi: msgpack messages, one connection per robot."""

from __future__ import annotations

import time
from typing import Any

import msgpack
import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from vla.config import register
from vla.serve.protocols.arrays import fields_of, number_type, to_array
from vla.serve.protocols.base import Protocol
from vla.serve.service import PolicyService, RequestError


@register("protocol", "openpi")
class OpenPi(Protocol):
    """openpi's websocket at ``/``; every connection has its own frame history."""

    urls = ("ws://{address}/ (openpi)",)

    def routes(self, service: PolicyService) -> list[BaseRoute]:
        """One websocket route. The server sends the policy's description first."""

        async def session(socket: WebSocket) -> None:
            await socket.accept()
            await socket.send_bytes(pack(service.about()))
            client, previous_ms = object(), 0.0
            try:
                while True:
                    message = await _receive(socket)
                    start = time.perf_counter()
                    fields = fields_of(unpack(message))
                    observation = await run_in_threadpool(
                        service.observation, fields, fields.get("prompt"), client
                    )
                    called = time.perf_counter()
                    chunks, plans = await run_in_threadpool(
                        service.runner.predict, [client], [observation]
                    )
                    timing = {"infer_ms": _ms_since(start)}
                    if previous_ms:
                        timing["prev_total_ms"] = previous_ms
                    answer = {
                        "actions": service.runner.actions_to_execute(client, chunks[0]),
                        "plan": plans[0],
                        "policy_timing": {"infer_ms": _ms_since(called)},
                        "server_timing": timing,
                    }
                    await socket.send_bytes(pack(answer))
                    previous_ms = _ms_since(start)
            except WebSocketDisconnect:
                return
            finally:
                service.runner.reset(client)

        return [WebSocketRoute("/", session)]


async def _receive(socket: WebSocket) -> bytes:
    try:
        return await socket.receive_bytes()
    except KeyError as error:  # Starlette's answer to a text frame
        raise RequestError("expected a binary msgpack message, got a text message") from error


def _ms_since(start: float) -> float:
    return 1000 * (time.perf_counter() - start)


def unpack(message: bytes) -> dict[str, Any]:
    """One msgpack observation: names to arrays, texts and further mappings.

    Raises:
        RequestError: not msgpack, not a mapping with text keys, or an invalid array.
    """
    try:
        request = msgpack.unpackb(message, object_hook=_from_msgpack, strict_map_key=False)
    except RequestError:
        raise
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise RequestError(f"not a msgpack message ({error})") from error
    if not isinstance(request, dict) or not all(isinstance(k, str) for k in request):
        raise RequestError("expected a mapping of names to arrays and texts")
    return request


def pack(value: dict[str, Any]) -> bytes:
    """Inverse of ``unpack``."""
    return msgpack.packb(value, default=_to_msgpack, use_bin_type=True)


def _from_msgpack(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" in value:
        return to_array(value.get(b"data"), value.get(b"dtype"), value.get(b"shape"))
    if b"__npgeneric__" in value:
        data = np.asarray(value.get(b"data"), number_type(value.get(b"dtype"))).tobytes()
        return to_array(data, value.get(b"dtype"), ()).item()
    return value


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
