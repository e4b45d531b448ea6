"""The websocket protocol of openpi: msgpack messages, one connection per robot."""

from __future__ import annotations

import time
from typing import Any

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from vla.config import register
from vla.serve.client import pack
from vla.serve.protocols.arrays import fields_of, to_array, to_number
from vla.serve.protocols.base import Protocol, receive
from vla.serve.protocols.messages import read_msgpack
from vla.serve.service import PolicyService, RequestError


@register("protocol", "openpi")
class OpenPi(Protocol):
    """openpi's websocket at ``/``; every connection has its own frame history."""

    urls = ("ws://{address}/ (openpi)",)

    def routes(self, service: PolicyService) -> list[BaseRoute]:
        """One websocket route. The server sends the policy's description first.

        The reply to an invalid request is its reason as a text; the connection stays open.
        """

        async def session(socket: WebSocket) -> None:
            await socket.accept()
            await socket.send_bytes(pack(service.about()))
            client, previous_ms = object(), 0.0
            try:
                while True:
                    message = await receive(socket)
                    start = time.perf_counter()
                    try:
                        reply = await _answer(service, message, client)
                    except RequestError as error:
                        await socket.send_text(str(error))
                        continue
                    finally:
                        del message  # a connection that waits keeps no memory
                    reply["server_timing"] = {"infer_ms": _ms_since(start)}
                    if previous_ms:
                        reply["server_timing"]["prev_total_ms"] = previous_ms
                    await socket.send_bytes(pack(reply))
                    previous_ms = _ms_since(start)
            except WebSocketDisconnect:
                return
            finally:
                service.reset(client)

        return [WebSocketRoute("/", session)]


async def _answer(
    service: PolicyService, message: bytes | str | None, client: object
) -> dict[str, Any]:
    size = len(message or ())
    fields = await service.off_loop(lambda: fields_of(unpack(message)), size=size)
    answer = await service.answer(fields, fields.get("prompt"), client, size)
    timing = {"infer_ms": answer.infer_ms}
    return {"actions": answer.actions, "plan": answer.plan, "policy_timing": timing}


def _ms_since(start: float) -> float:
    return 1000 * (time.perf_counter() - start)


def unpack(message: bytes | str | None) -> dict[str, Any]:
    """One msgpack observation: names to arrays, texts and further mappings.

    Raises:
        RequestError: not msgpack, not a mapping with text keys, or an invalid array.
    """
    return read_msgpack(message, _from_msgpack)


def _from_msgpack(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" in value:
        return to_array(value.get(b"data"), value.get(b"dtype"), value.get(b"shape"))
    if b"__npgeneric__" in value:
        return to_number(value.get(b"data"), value.get(b"dtype"))
    return value
