"""Errors whose message a client gets instead of an answer."""

from __future__ import annotations

MAX_MESSAGE = 2000  # characters: a message may name fields of the request


class RequestError(ValueError):
    """An invalid request. The message says what was expected and is sent to the client."""

    def __init__(self, message: str) -> None:
        super().__init__(message[:MAX_MESSAGE])


class ActionRefused(RequestError):
    """The policy's actions for a request are not finite, or out of bounds; they are not sent."""


class Busy(RequestError):
    """The server cannot take this request now: status 503, or close code 1013."""


class TooLarge(RequestError):
    """A message above the limit: status 413, or close code 1009."""


class TooSlow(RequestError):
    """A request that did not arrive in time: status 408."""
