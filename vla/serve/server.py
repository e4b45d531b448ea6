"""``vla serve``: all protocols on one port, reachable from this machine only by default."""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from vla.config import build, registered
from vla.policies.checkpoint import load_policy
from vla.policies.decoding import DecodingOptions, set_decoding
from vla.policies.execution import chosen_execution
from vla.serve.protocols.base import Protocol
from vla.serve.service import PolicyService, RequestError

KEY = "VLA_API_KEY"  # if set, clients must send the header "Authorization: Api-Key <its value>"
MAX_BYTES = 64 * 2**20  # of one message or request body
PUBLIC = ("/about", "/healthz")  # paths that need no key, and GET /
_NO_KEY = "wrong or no key; send Authorization: Api-Key <key>"


class _BodyTooLarge(Exception):
    """A request body of more than ``MAX_BYTES``."""


class _Guard:
    """ASGI middleware: the API key and the size limit, for the routes of every protocol."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = 0

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if scope["type"] == "http" and size > MAX_BYTES:
                raise _BodyTooLarge(f"larger than {MAX_BYTES} bytes")
            return message

        if scope["type"] == "lifespan" or _is_public(scope) or _has_key(scope):
            await self.app(scope, limited, send)
        elif scope["type"] == "websocket":
            await WebSocket(scope, receive, send).close(1008, _NO_KEY)
        else:
            await JSONResponse({"error": _NO_KEY}, 401)(scope, receive, send)


def _is_public(scope: Scope) -> bool:
    page = scope["type"] == "http" and scope["path"] == "/" and scope["method"] in ("GET", "HEAD")
    return page or scope["path"] in PUBLIC


def _has_key(scope: Scope) -> bool:
    expected = f"Api-Key {os.environ.get(KEY, '')}".encode()
    sent = dict(scope["headers"]).get(b"authorization", b"")
    return not os.environ.get(KEY) or hmac.compare_digest(sent, expected)


async def _refuse(connection: Any, error: Exception) -> Response | None:
    """The reply to an invalid request: JSON with a status, or a text message and a close code."""
    if isinstance(connection, WebSocket):
        await connection.send_text(str(error))
        await connection.close(1011, str(error)[:100])
        return None
    return JSONResponse({"error": str(error)}, 413 if isinstance(error, _BodyTooLarge) else 400)


async def _disconnected(request: Any, error: Exception) -> Response:
    return Response(status_code=499)


def _urls(protocols: Sequence[Protocol], address: str) -> list[str]:
    """The addresses of all protocols and of the server's own pages."""
    own = [f"http://{{address}}{path}" for path in PUBLIC]
    urls = [*(url for protocol in protocols for url in protocol.urls), *own]
    return [url.format(address=address) for url in urls]


def make_app(service: PolicyService, protocols: Sequence[Protocol], policy: str = "") -> Starlette:
    """The application with the routes of all protocols, ``/``, ``/about`` and ``/healthz``.

    Args:
        policy: name of the policy for the page at ``/``.
    """

    async def index(request: Request) -> Response:
        address = request.headers.get("host", "this server")
        page = {"policy": policy, "robot": service.policy.robot}
        return JSONResponse(page | {"endpoints": _urls(protocols, address)})

    async def about(request: Request) -> Response:
        return JSONResponse(service.about())

    async def health(request: Request) -> Response:
        return PlainTextResponse("OK")

    handlers: dict[Any, Any] = {
        RequestError: _refuse,
        _BodyTooLarge: _refuse,
        ClientDisconnect: _disconnected,
    }
    routes: list[BaseRoute] = [Route("/about", about), Route("/healthz", health)]
    for protocol in protocols:
        routes += protocol.routes(service)
    routes.append(Route("/", index))  # last: a protocol may answer here
    return Starlette(
        routes=routes,
        middleware=[Middleware(_Guard)],
        exception_handlers=handlers,
    )


def all_protocols() -> list[Protocol]:
    """One of every registered protocol, those of plug-ins included."""
    return [build("protocol", {"name": name}) for name in registered("protocol")]


def run_server(
    policy_dir: Path,
    host: str,
    port: int,
    robot: str | None,
    cameras: Mapping[str, str],
    state: Sequence[str],
    device: str,
    decoding: DecodingOptions | None = None,
    execution_horizon: int | None = None,
    temporal_ensemble: float | None = None,
) -> None:
    """``vla serve``: load the policy, call it once so that it is warm, listen until stopped.

    Raises:
        ConfigError: the policy cannot decode or execute its chunks as the options say.
    """
    policy = load_policy(policy_dir, device).robot(robot)
    set_decoding(policy, decoding)
    execution = chosen_execution(policy.spec, execution_horizon, temporal_ensemble)
    service = PolicyService(policy, cameras, state, execution)
    service.runner.predict([None], [service.blank_observation()])
    spec, protocols = service.spec, all_protocols()
    print(
        f"{policy_dir}: robot {service.policy.robot}, cameras {', '.join(spec.cameras) or 'none'}, "
        f"action chunks of {spec.horizon}, {service.runner.queue.execution_horizon} a reply"
    )
    for url in _urls(protocols, f"{host}:{port}"):
        print(url, flush=True)
    uvicorn.run(
        make_app(service, protocols, "/".join(policy_dir.absolute().parts[-2:])),
        host=host,
        port=port,
        log_level="warning",
        ws_max_size=MAX_BYTES,
        ws_ping_interval=None,
        ws_per_message_deflate=False,
    )
