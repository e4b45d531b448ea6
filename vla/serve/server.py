"""``vla serve``: all protocols on one port, reachable from this machine only by default."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.websockets import WebSocket, WebSocketDisconnect

from vla.config import build, registered
from vla.inference.engine import speed_up
from vla.inference.exported_bound import open_policy
from vla.policies.decoding import DecodingOptions, set_decoding
from vla.policies.execution import chosen_execution
from vla.serve.access import PUBLIC, Access, check_reach
from vla.serve.batching import Batching
from vla.serve.errors import ActionRefused, Busy, RequestError, TooLarge, TooSlow
from vla.serve.guard import Guard
from vla.serve.limits import Budget, Limits
from vla.serve.protocols.base import Protocol
from vla.serve.protocols.gr00t import GrootServer
from vla.serve.service import PolicyService
from vla.serve.sessions import Sessions
from vla.serve.transport import LimitedServer

_STATUS: dict[type[Exception], tuple[int, int]] = {  # HTTP status and websocket close code
    RequestError: (400, 1011),
    ActionRefused: (422, 1011),
    TooLarge: (413, 1009),
    TooSlow: (408, 1001),
    Busy: (503, 1013),
}


async def _refuse(connection: Any, error: Exception) -> Response | None:
    """The reply to an invalid request: JSON with a status, or a text message and a close code."""
    status, code = next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    if isinstance(connection, WebSocket):
        with suppress(WebSocketDisconnect, RuntimeError):  # the client may be gone
            await connection.send_text(str(error))
            await connection.close(code, str(error)[:100])
        return None
    headers = {"Connection": "close"} if status in (408, 413) else {}
    return JSONResponse({"error": str(error)}, status, headers)


async def _disconnected(request: Any, error: Exception) -> Response:
    return Response(status_code=499)


def _urls(protocols: Sequence[Protocol], address: str) -> list[str]:
    """The addresses of all protocols and of the server's own pages."""
    own = [f"http://{{address}}{path}" for path in PUBLIC]
    urls = [*(url for protocol in protocols for url in protocol.urls), *own]
    return [url.format(address=address) for url in urls]


def make_app(
    service: PolicyService,
    protocols: Sequence[Protocol],
    policy: str = "",
    access: Access | None = None,
    limits: Limits | None = None,
    budget: Budget | None = None,
    groot: GrootServer | None = None,
) -> Starlette:
    """The application with the routes of all protocols, ``/``, ``/about`` and ``/healthz``.

    Args:
        policy: name of the policy for the page at ``/``.
        access: who may use it; default: programs on this machine, and Starlette's test client.
        limits: of messages and times.
        budget: counts the bytes of messages; default: one with these limits.
        groot: a server of GR00T's protocol that runs as long as the application.
    """
    access, limits = access or Access(hosts=("testserver",)), limits or Limits()

    async def index(request: Request) -> Response:
        address = request.headers.get("host", "this server")
        page = {"policy": policy, "robot": service.policy.robot}
        return JSONResponse(page | {"endpoints": _urls(protocols, address)})

    async def about(request: Request) -> Response:
        return JSONResponse(service.about())

    async def health(request: Request) -> Response:
        return PlainTextResponse("OK")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(_drop_idle(service.sessions))]
        if groot is not None:
            tasks.append(asyncio.create_task(groot.run()))
        yield
        for task in tasks:
            task.cancel()

    handlers: dict[Any, Any] = dict.fromkeys(_STATUS, _refuse) | {ClientDisconnect: _disconnected}
    guard = Middleware(Guard, access, limits, budget or Budget(limits))
    pages = Middleware(
        CORSMiddleware,
        allow_origins=access.origins,
        allow_headers=["Authorization", "Content-Type"],
        allow_methods=["GET", "POST"],
    )
    routes: list[BaseRoute] = [Route("/about", about), Route("/healthz", health)]
    for protocol in protocols:
        routes += protocol.routes(service)
    routes.append(Route("/", index))  # last: a protocol may answer here
    return Starlette(
        routes=routes,
        middleware=[pages, guard] if access.origins else [guard],
        exception_handlers=handlers,
        lifespan=lifespan,
    )


async def _drop_idle(sessions: Sessions) -> None:
    """Drop the state of idle clients, forever."""
    while True:
        await asyncio.sleep(min(sessions.timeout / 4, 60))
        sessions.drop_idle()


def all_protocols() -> list[Protocol]:
    """One of every registered protocol, those of plug-ins included."""
    return [build("protocol", {"name": name}) for name in registered("protocol")]


@dataclass(frozen=True)
class Listening:
    """Where ``vla serve`` listens, and for whom."""

    host: str = "127.0.0.1"  # address; 0.0.0.0 is open to the network
    port: int = 8000  # TCP port
    insecure: bool = False  # listen beyond loopback without an API key
    allow_host: tuple[str, ...] = ()  # see ``Access``
    allow_origin: tuple[str, ...] = ()
    zmq_port: int | None = None  # port of GR00T's protocol; None: not served
    zmq_kill: bool = False  # see ``GrootServer``

    def access(self) -> Access:
        """The access that this allows.

        Raises:
            ConfigError: the server would be open to the network without a key.
        """
        network = check_reach(self.host, self.insecure)
        hosts = (*(name.lower() for name in self.allow_host), self.host.lower())
        origins = tuple(origin.lower().rstrip("/") for origin in self.allow_origin)
        return Access(hosts, origins, network)


def run_server(
    policy_dir: Path,
    robot: str | None,
    cameras: Mapping[str, str],
    state: Sequence[str],
    device: str,
    decoding: DecodingOptions | None = None,
    execution: Mapping[str, Any] | None = None,
    listening: Listening | None = None,
    limits: Limits | None = None,
    batching: Batching | None = None,
    compiled: bool = False,
    quantize: str | None = None,
) -> None:
    """``vla serve``: load the policy, call it once so that it is warm, listen until stopped.

    SIGINT and SIGTERM end the process within 2 s, also if a policy call runs. ``compiled`` and
    ``quantize``: see ``speed_up``.

    Raises:
        ConfigError: the policy cannot decode or execute its chunks as the options say, or the
            server would be open to the network without a key.
        ActionError: the actions for blank images are not finite.
    """
    listening, limits = listening or Listening(), limits or Limits()
    access = listening.access()
    policy = open_policy(policy_dir, device, robot)
    set_decoding(policy, decoding)
    speed_up(policy, compiled, quantize)
    chosen = chosen_execution(policy.spec, **(execution or {}))
    service = PolicyService(policy, cameras, state, chosen, batching, limits.session_timeout)
    service.runner.predict([None], [service.blank_observation()])
    spec, protocols = service.spec, all_protocols()
    print(
        f"{policy_dir}: robot {service.policy.robot}, cameras {', '.join(spec.cameras) or 'none'}, "
        f"action chunks of {spec.horizon}, {service.runner.queue.execution_horizon} a reply"
    )
    for url in _urls(protocols, f"{listening.host}:{listening.port}"):
        print(url, flush=True)
    budget, name = Budget(limits), "/".join(policy_dir.absolute().parts[-2:])
    groot = None
    if listening.zmq_port is not None:
        groot = GrootServer(service, listening.zmq_kill, limits.message_bytes, budget)
        groot.bind(listening.host, listening.zmq_port)
        print(f"tcp://{listening.host}:{listening.zmq_port} (GR00T, ZMQ)", flush=True)
    app = make_app(service, protocols, name, access, limits, budget, groot)
    server = LimitedServer(app, listening.host, listening.port, limits, budget, service.close)
    try:
        server.run()
    except KeyboardInterrupt:
        if service.is_busy:  # Python would wait for its threads
            print("interrupted", file=sys.stderr, flush=True)
            os._exit(130)
        raise
