"""``vla serve``: openpi's websocket at ``/`` and OpenVLA's REST at ``/act``, on one port, for this machine alone unless told otherwise."""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from vla.serve.engine import Engine, RequestError, Session
from vla.serve.wire import MAX_BYTES, flat, from_json, pack, to_json, unpack

KEY = "VLA_API_KEY"  # environment variable: where it is set, clients must send "Authorization: Api-Key <it>"


def _allowed(headers: Mapping[str, str]) -> bool:
    key = os.environ.get(KEY)
    return not key or hmac.compare_digest(headers.get("authorization", "").encode(), f"Api-Key {key}".encode())


def make_app(engine: Engine) -> Starlette:
    """The protocols around one engine."""

    async def openpi(socket: WebSocket) -> None:
        if not _allowed(socket.headers):
            return await socket.close(1008, "wrong or no key: send Authorization: Api-Key <key>")
        await socket.accept()
        await socket.send_bytes(pack(engine.about()))  # the server speaks first
        session, before = Session(), 0.0
        try:
            while True:
                message = await socket.receive_bytes()
                start = time.perf_counter()
                observation = flat(unpack(message))
                actions, spent = await run_in_threadpool(engine.infer, observation, observation.get("prompt"), session)
                timing: dict[str, float] = {"infer_ms": 1000 * (time.perf_counter() - start)}
                if before:
                    timing["prev_total_ms"] = before
                await socket.send_bytes(pack({"actions": actions, "policy_timing": {"infer_ms": spent}, "server_timing": timing}))
                before = 1000 * (time.perf_counter() - start)
        except WebSocketDisconnect:
            return
        except (RequestError, KeyError) as error:  # KeyError: a text frame where bytes were expected
            said = str(error) if isinstance(error, RequestError) else "expected a binary msgpack message"
            await socket.send_text(said)
            await socket.close(1011, said[:100])

    async def act(request: Request) -> Response:
        if not _allowed(request.headers):
            return JSONResponse({"error": "wrong or no key: send Authorization: Api-Key <key>"}, 401)
        body = bytearray()
        try:
            async for part in request.stream():
                body += part
                if len(body) > MAX_BYTES:
                    return JSONResponse({"error": f"larger than {MAX_BYTES} bytes"}, 413)
            asked, twice = from_json(bytes(body))
            observation = flat(asked)
            actions, _ = await run_in_threadpool(engine.infer, observation, observation.pop("instruction", None), None)
        except ClientDisconnect:
            return Response(status_code=499)
        except RequestError as error:
            return JSONResponse({"error": str(error)}, 400)
        answer = actions[0] if len(actions) == 1 else actions
        return Response(to_json(answer, twice), media_type="application/json")

    async def about(request: Request) -> Response:
        return JSONResponse(engine.about())

    async def health(request: Request) -> Response:
        return PlainTextResponse("OK")

    return Starlette(
        routes=[
            WebSocketRoute("/", openpi), Route("/act", act, methods=["POST"]), Route("/about", about), Route("/healthz", health),
        ]
    )  # fmt: skip


def run_server(
    policy: Path, host: str, port: int, robot: str | None, cameras: Mapping[str, str], state: Sequence[str], device: str
) -> None:
    """``vla serve``: load, warm up with one request, listen until stopped."""
    import numpy as np
    import uvicorn

    from vla.module import PolicyModule

    engine = Engine(PolicyModule.load(policy, device).robot(robot), cameras, state)
    contract = engine.contract
    height, width = contract.image_size
    blank: dict[str, Any] = {engine.cameras.get(c, c): np.zeros((height, width, 3), np.uint8) for c in contract.cameras}
    if contract.state_dim:
        blank |= {engine.state[0]: np.zeros(contract.state_dim, np.float32)} | {
            n: np.zeros(0, np.float32) for n in engine.state[1:]
        }
    _, spent = engine.infer(blank, "wait", Session())
    print(
        f"{policy}: robot {engine.policy.robot}, cameras {', '.join(contract.cameras)}, {contract.horizon} steps an answer, first answer in {spent:.0f} ms"
    )
    print(f"ws://{host}:{port}/ (openpi), http://{host}:{port}/act (OpenVLA), http://{host}:{port}/about", flush=True)
    uvicorn.run(
        make_app(engine),
        host=host,
        port=port,
        log_level="warning",
        ws_max_size=MAX_BYTES,
        ws_ping_interval=None,
        ws_per_message_deflate=False,
    )
