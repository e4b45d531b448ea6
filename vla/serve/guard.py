"""ASGI middleware of all protocols: access, message sizes and times."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from vla.serve.access import Access
from vla.serve.errors import TooLarge, TooSlow
from vla.serve.limits import Budget, Limits


class Guard:
    """Refuses requests that ``access`` does not allow, and those beyond ``limits``."""

    def __init__(self, app: ASGIApp, access: Access, limits: Limits, budget: Budget) -> None:
        self.app, self.access, self.limits, self.budget = app, access, limits, budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif (problem := self.access.problem(scope)) is not None:
            if scope["type"] == "websocket":
                await WebSocket(scope, receive, send).close(1008, problem[1])
            else:
                await JSONResponse({"error": problem[1]}, problem[0])(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        size, complete = 0, False
        deadline = time.monotonic() + self.limits.receive_timeout

        async def limited() -> Message:
            nonlocal size, complete
            left = None if complete else max(deadline - time.monotonic(), 0.0)
            try:
                message = await asyncio.wait_for(receive(), left)
            except TimeoutError:
                seconds = self.limits.receive_timeout
                raise TooSlow(f"the request did not arrive in {seconds:g} s") from None
            part = len(message.get("body", b""))
            if size + part > self.limits.message_bytes:
                raise TooLarge(f"larger than {self.limits.message_bytes} bytes")
            self.budget.take(part)
            size += part
            complete = not message.get("more_body", False)
            return message

        try:
            await self.app(scope, limited, self._within_time(send))
        finally:
            self.budget.release(size)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def limited() -> Message:
            seconds = self.limits.session_timeout
            try:
                message = await asyncio.wait_for(receive(), seconds)
            except TimeoutError:
                return await self._close(send, 1001, f"idle for {seconds:g} s")
            size = len(message.get("bytes") or message.get("text") or b"")
            if size > self.limits.message_bytes:
                limit = f"larger than {self.limits.message_bytes} bytes"
                return await self._close(send, 1009, limit)
            return message

        await self.app(scope, limited, self._within_time(send))

    async def _close(self, send: Send, code: int, reason: str) -> Message:
        """Close a websocket; returns what the application receives then."""
        await self._within_time(send)(
            {"type": "websocket.close", "code": code, "reason": reason},
        )
        return {"type": "websocket.disconnect", "code": code, "reason": reason}

    def _within_time(self, send: Send) -> Send:
        """``send`` for a client that may not read."""

        async def limited(message: Any) -> None:
            try:
                await asyncio.wait_for(send(message), self.limits.receive_timeout)
            except TimeoutError:
                raise OSError("the client does not read the answer") from None

        return limited
