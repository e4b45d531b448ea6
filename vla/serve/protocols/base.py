"""The interface of a protocol."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from starlette.routing import BaseRoute

from vla.serve.service import PolicyService


class Protocol(ABC):
    """The wire format of one kind of client: a class with ``@register("protocol", name)``.

    A handler does three things: it decodes the request to names and arrays, calls
    ``service.observation``, ``service.runner.predict`` and ``service.runner.actions_to_execute``,
    and encodes the actions. The server adds the API key, the size limit and the replies to a
    ``RequestError``.
    """

    urls: tuple[str, ...] = ()  # shown at start; "{address}" is replaced by host and port

    @abstractmethod
    def routes(self, service: PolicyService) -> Sequence[BaseRoute]:
        """Starlette routes of the protocol."""
