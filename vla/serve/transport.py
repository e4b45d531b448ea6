"""Connections with limits that uvicorn's own protocols do not have."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from vla.serve.errors import Busy
from vla.serve.limits import Budget, Limits

MAX_FRAGMENTS = 10_000  # of one websocket message
_FULL = JSONResponse(
    {"error": "too many connections; try again later"},
    503,
    {"Connection": "close", "Retry-After": "1"},
)


class LimitedServer(uvicorn.Server):
    """uvicorn's server with limits.

    Args:
        app: the ASGI application.
        budget: the bytes of messages, as the application counts them.
        stop: called when the server begins to end; requests that wait get an error.
    """

    def __init__(
        self,
        app: Any,
        host: str,
        port: int,
        limits: Limits,
        budget: Budget,
        stop: Callable[[], None],
    ) -> None:
        class Http(_Http):
            pass

        class WebSocket(_WebSocket):
            pass

        Http.limits, WebSocket.budget = limits, budget
        options: dict[str, Any] = {"http": Http, "ws": WebSocket}
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            log_level="warning",
            ws_max_size=limits.message_bytes,
            ws_ping_interval=None,
            ws_per_message_deflate=False,
            timeout_keep_alive=max(1, round(limits.receive_timeout)),
            timeout_graceful_shutdown=1,
            **options,
        )
        super().__init__(config)
        self._stop = stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse what waits, close the connections, and end within 2 s."""
        self._stop()
        for connection in list(self.server_state.connections):
            cycle = getattr(connection, "cycle", None)
            if cycle is not None and cycle.more_body:  # its request will not be complete
                connection.transport.abort()
        await super().shutdown(sockets)


class _Http(H11Protocol):
    """Refuses connections above the limit, and closes those whose request does not arrive."""

    limits: Limits
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        count, limit = len(self.connections), self.limits.max_connections
        if count > 2 * limit + 16:  # too many to read their requests
            transport.abort()
        if count > limit:
            self.app = _FULL
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.get_protocol() is not self:  # a websocket now
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()  # the application reads the body within the time
        elif self._timer is None:
            self._wait()

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._stop_waiting()
        if self.app is _FULL:
            head = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n"
            length = b"Content-Length: %d\r\n\r\n" % len(_FULL.body)
            self.transport.write(head + length + _FULL.body)
            self.transport.close()
        else:
            super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._timer = self.loop.call_later(self.limits.receive_timeout, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _WebSocket(WebSocketsSansIOProtocol):
    """Counts the bytes of messages that arrive, and of those that wait for their answer."""

    budget: Budget
    _held = 0
    _failed = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.close_timeout = 1.0  # s that the client has to confirm the end

    def data_received(self, data: bytes) -> None:
        if self._failed:
            return
        try:
            self.budget.take(len(data))
        except Busy as error:
            self._fail(1013, str(error))
            return
        self._held += len(data)
        super().data_received(data)
        if len(self.frames) > MAX_FRAGMENTS:
            self._fail(1009, f"more than {MAX_FRAGMENTS} fragments")

    async def send(self, message: Any) -> None:
        """Send an answer; the application has finished with the message before it."""
        self._finish()
        await super().send(message)

    async def receive(self) -> Any:
        """The next message; the application has finished with the one before it."""
        self._finish()
        return await super().receive()

    def _finish(self) -> None:
        if self.queue.empty():
            partial = len(self.conn.reader.buffer) + sum(map(len, self.frames))
            self._release(max(self._held - partial, 0))

    def connection_lost(self, exc: Exception | None) -> None:
        self._release(self._held)
        super().connection_lost(exc)

    def _release(self, size: int) -> None:
        self.budget.release(size)
        self._held -= size

    def _fail(self, code: int, reason: str) -> None:
        self.conn.fail(code, reason)
        self.handle_parser_exception()

    def handle_parser_exception(self) -> None:
        """Send the reason, and discard what arrives until the client confirms it.

        If the connection ended while the client sends, the client would not get the reason.
        """
        sent, self._failed, self.frames = self.conn.close_sent, True, []
        if sent is None:  # before the handshake
            self.transport.abort()
            return
        end = {"type": "websocket.disconnect", "code": sent.code, "reason": sent.reason}
        self.queue.put_nowait(end)  # type: ignore[arg-type]
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)
