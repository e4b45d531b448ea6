"""msgpack and JSON messages: their structure is counted before any object of it is made."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgpack

from vla.serve.service import RequestError

MAX_DEPTH = 64  # of nested lists and mappings in msgpack; JSON's parser has its own limit
MAX_ITEMS = 50_000  # values of a msgpack message, those in arrays of numbers not counted
# Characters of a JSON text. Images as nested lists have a bracket per pixel.
MAX_COUNTS = {"{": 10_000, '"': 40_000, "[": 350_000, ",": 1_000_000}
# First byte of a msgpack value -> bytes of its length field, bytes before its data, children per
# unit of length (0: the length counts bytes).
_SIZED = {
    **{0xC4 + k: (2**k, 0, 0) for k in range(3)},  # bin
    **{0xC7 + k: (2**k, 1, 0) for k in range(3)},  # ext: a type byte
    **{0xD9 + k: (2**k, 0, 0) for k in range(3)},  # str
    **{0xDC + k: (2 * (k + 1), 0, 1) for k in range(2)},  # array
    **{0xDE + k: (2 * (k + 1), 0, 2) for k in range(2)},  # map
}
_FIXED = {  # first byte -> bytes that follow it
    **dict.fromkeys((0xC0, 0xC2, 0xC3), 0),
    **{0xCA: 4, 0xCB: 8},
    **{0xCC + k: 2**k for k in range(4)},
    **{0xD0 + k: 2**k for k in range(4)},
    **{0xD4 + k: 1 + 2**k for k in range(5)},
}


def read_msgpack(message: Any, hook: Callable[[dict[Any, Any]], Any]) -> dict[str, Any]:
    """The mapping of one msgpack message.

    Args:
        hook: replaces mappings, for example by arrays.

    Raises:
        RequestError: not msgpack, too many or too deeply nested values, or not a mapping with
            text keys; and the errors of ``hook``.
    """
    if not isinstance(message, bytes):
        raise RequestError("expected a binary msgpack message, got a text message")
    _check_structure(message)
    try:
        request = msgpack.unpackb(message, object_hook=hook, strict_map_key=False)
    except RequestError:
        raise
    except (ValueError, TypeError, OverflowError, msgpack.exceptions.UnpackException) as error:
        raise RequestError(f"not a msgpack message ({str(error)[:200]})") from error
    if not isinstance(request, dict) or not all(isinstance(k, str) for k in request):
        raise RequestError("expected a mapping of names to arrays and texts")
    return request


def _check_structure(message: bytes) -> None:
    """Refuse a message with more than ``MAX_ITEMS`` values or ``MAX_DEPTH`` levels."""
    at, items, left = 0, 0, [1]  # left: values to come at every level
    while left:
        if not left[-1]:
            left.pop()
            continue
        if at >= len(message):
            raise RequestError("not a msgpack message (it ends early)")
        left[-1] -= 1
        at, children = _value(message, at)
        items += 1 + children
        if items > MAX_ITEMS or len(left) > MAX_DEPTH:
            raise RequestError(
                f"a msgpack message has at most {MAX_ITEMS} values in {MAX_DEPTH} levels; "
                "send numbers as arrays"
            )
        if children:
            left.append(children)
    if at != len(message):
        raise RequestError("not a msgpack message (bytes follow it)")


def _value(message: bytes, at: int) -> tuple[int, int]:
    """End of the value at ``at``, without its children, and the number of its children."""
    first = message[at]
    if first < 0x80 or first >= 0xE0:  # a small number
        return at + 1, 0
    if first < 0x90:
        return at + 1, 2 * (first & 0x0F)
    if first < 0xA0:
        return at + 1, first & 0x0F
    if first < 0xC0:  # a short text
        return at + 1 + (first & 0x1F), 0
    if first in _FIXED:
        return at + 1 + _FIXED[first], 0
    if first not in _SIZED:
        raise RequestError("not a msgpack message (an unknown type)")
    width, extra, children = _SIZED[first]
    start = at + 1 + width
    length = int.from_bytes(message[at + 1 : start], "big")
    return (start, length * children) if children else (start + extra + length, 0)


def read_json(body: bytes | str, hook: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """The object of one JSON text.

    Args:
        hook: replaces objects, for example by arrays.

    Raises:
        RequestError: not JSON in UTF-8, too many values, or not an object; and the errors of
            ``hook``.
    """
    try:
        text = body if isinstance(body, str) else body.decode("utf-8")
        for character, most in MAX_COUNTS.items():
            if text.count(character) > most:
                raise RequestError(
                    f"a JSON request has at most {most} characters {character}; "
                    "send images as base64"
                )
        request = json.loads(text, object_hook=hook)
    except RequestError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise RequestError(f"not JSON ({ascii(str(error))[1:-1][:200]})") from error
    if not isinstance(request, dict):
        raise RequestError("expected a JSON object")
    return request
