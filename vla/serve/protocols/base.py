"""The interface of a protocol."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from starlette.routing import BaseRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from vla.serve.service import PolicyService


class Protocol(ABC):
    """The wire format of one kind of client: a class with ``@register("protocol", name)``.

    A handler does three things: it decodes the request to names and arrays within
    ``service.off_loop``, awaits ``service.answer`` (in threads: ``service.submit``), and encodes
    the actions. It calls ``service.reset(client)`` where an episode begins or a connection ends.
    The server adds the API key, the limits and the replies to a ``RequestError``.
    """

    urls: tuple[str, ...] = ()  # shown at start; "{address}" is replaced by host and port

    @abstractmethod
    def routes(self, service: PolicyService) -> Sequence[BaseRoute]:
        """Starlette routes of the protocol."""


async def receive(socket: WebSocket) -> bytes | str | None:
    """The next message of a websocket: bytes, or the text of a text message.

    Raises:
        WebSocketDisconnect: the client has closed the connection.
    """
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005), message.get("reason"))
    data = message.get("bytes")
    return message.get("text") if data is None else data
