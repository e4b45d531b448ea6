"""The websocket protocol of the evaluation harness vla-eval (PyPI), version 1."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any

import msgpack
import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from vla.config import register
from vla.serve.handshake import harness_specs
from vla.serve.protocols.arrays import ImageDecoder, fields_of, to_array
from vla.serve.protocols.base import Protocol, receive
from vla.serve.protocols.messages import read_msgpack
from vla.serve.service import PolicyService, RequestError

log = logging.getLogger(__name__)
VERSION = 1
_TYPES = ("hello", "observation", "episode_start", "episode_end", "error")  # that clients send


@register("protocol", "vla_eval")
class VlaEval(Protocol):
    """vla-eval's websocket at ``/vla-eval``, and its pages ``/health`` and ``/config``.

    The client speaks first. Every observation gets one action; the session keeps the rest of the
    chunk. The reply to an invalid message is an error, and the connection stays open.
    """

    urls = ("ws://{address}/vla-eval (vla-eval)",)

    def routes(self, service: PolicyService) -> list[BaseRoute]:
        """One websocket route, and two GET routes."""

        async def session(socket: WebSocket) -> None:
            await socket.accept()
            client = object()
            try:
                while True:
                    message = await receive(socket)
                    reply = await _reply(service, message, client)
                    del message  # a connection that waits keeps no memory
                    if reply is not None:
                        await socket.send_bytes(reply)
            except WebSocketDisconnect:
                return
            finally:
                service.reset(client)

        async def health(request: Request) -> Response:
            return JSONResponse({"status": "ok"})

        async def config(request: Request) -> Response:
            if request.query_params:
                return JSONResponse({"errors": ["this server's options are read only"]}, 422)
            return JSONResponse({"applied": {}, "config": service.about()})

        pages: list[BaseRoute] = [Route("/health", health), Route("/config", config)]
        return [WebSocketRoute("/vla-eval", session), *pages]


async def _reply(
    service: PolicyService, message: bytes | str | None, client: object
) -> bytes | None:
    """The packed reply to one message; None for messages without one."""
    size, seq = len(message or ()), 0
    try:
        kind, payload, seq = await service.off_loop(read_envelope, message, size=size)
        if kind == "hello":
            return envelope("hello", _hello(service, payload), seq)
        if kind == "observation":
            fields = await service.off_loop(fields_of, payload, size=size)
            if "state" not in fields and "states" in fields:  # LIBERO's name
                fields["state"] = fields["states"]
            text = fields.get("task_description")
            answer = await service.answer(fields, text, client, size, one_step=True)
            return envelope("action", {"actions": answer.actions[0]}, seq)
        if kind != "error":
            service.reset(client)
        return None
    except RequestError as error:
        return envelope("error", {"error": str(error)}, seq)
    except Exception as error:  # the harness counts a failed episode and goes on
        log.exception("vla-eval message failed")
        return envelope("error", {"error": f"the server failed: {type(error).__name__}"}, seq)


def _hello(service: PolicyService, payload: dict[str, Any]) -> dict[str, Any]:
    version = payload.get("protocol_version", VERSION)
    if version != VERSION:
        raise RequestError(
            f"protocol version {ascii(version)[:20]} is not supported; this server has {VERSION}"
        )
    return {
        "harness_version": "vla serve",
        "protocol_version": VERSION,
        "model_server": f"robot {service.policy.robot}",
        "capabilities": {},
        **harness_specs(service.about()),
    }


def read_envelope(message: bytes | str | None) -> tuple[str, dict[str, Any], int]:
    """Type, payload and number of one message.

    Raises:
        RequestError: not a message of vla-eval, or an invalid array or image.
    """
    raw = read_msgpack(message, partial(_from_msgpack, ImageDecoder()))
    missing = [name for name in ("type", "payload", "seq", "timestamp") if name not in raw]
    if missing:
        raise RequestError(f"the message has no {', '.join(missing)}")
    kind, payload, seq = raw["type"], raw["payload"], raw["seq"]
    if kind not in _TYPES:
        raise RequestError(f"type {ascii(kind)[:50]}: expected one of {', '.join(_TYPES)}")
    if not isinstance(payload, dict) or type(seq) is not int:
        raise RequestError("expected a mapping as payload and a whole number as seq")
    return kind, payload, seq


def envelope(kind: str, payload: dict[str, Any], seq: int) -> bytes:
    """Inverse of ``read_envelope``."""
    message = {"type": kind, "payload": payload, "seq": seq, "timestamp": time.time()}
    return msgpack.packb(message, default=_to_msgpack, use_bin_type=True)


def _from_msgpack(decode: ImageDecoder, value: dict[Any, Any]) -> Any:
    if "__ndarray__" in value or (value.get("format") == "raw" and "__image__" in value):
        return to_array(value.get("data"), value.get("dtype"), value.get("shape"))
    return decode(value.get("data")) if "__image__" in value else value


def _to_msgpack(value: np.ndarray) -> dict[str, Any]:
    return {
        "__ndarray__": True,
        "data": value.tobytes(),
        "dtype": value.dtype.str,
        "shape": value.shape,
    }
