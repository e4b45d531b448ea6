"""Mutated messages: bytes and structures, from a seed."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

from wire_formats import FORMATS

_DEEP: Any = 0
for _ in range(60):
    _DEEP = [_DEEP]
STRANGE: list[Any] = [
    *(None, True, False, 0, -1, 3, 2**31, 2**63 - 1, 2**64 - 1, 1e308, -1e-320),
    *(float("inf"), float("nan"), "", "go", "x" * 3000, "\ud800", "Infinity", "\x00", "é☃"),
    *("<U100000000", "|O", "(", "V99999999", "<f4", "|u1", ">f8", "<M8[s]", "f4,f4", "<c16"),
    *([], {}, [[]], [0], [1, [2]], ["a", 1], [0, 0, 3], [2**31] * 8, [1] * 40, [-1, 8], _DEEP),
    *([8, 8, 3.0], [True, 8, 3], [[255] * 8] * 8, [[[1e300] * 3] * 8] * 8, [10**19] * 3),
    *({"a": {"b": {"c": 1}}}, {"__numpy__": ""}, {"__ndarray__": True}, {"__image__": 1}),
    *(b"", b"\xff" * 64, b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"\x93NUMPY\x01\x00\x10\x00"),
]


def mutated(name: str, count: int, seed: int) -> Iterator[bytes]:
    """``count`` messages of one protocol, most of them invalid."""
    rng = random.Random(f"{name} {seed}")
    kind = FORMATS[name]
    whole = kind.write(kind.message())
    for n in range(count):
        if n % 2:
            yield _bytes(whole, rng)
        else:
            message = copy.deepcopy(kind.message())
            for _ in range(rng.choice((1, 1, 1, 2, 4))):
                _structure(message, rng)
            written = kind.write(message)
            yield _bytes(written, rng) if rng.random() < 0.2 else written


def _bytes(message: bytes, rng: random.Random) -> bytes:
    out = bytearray(message)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(out) + 1)
        length = rng.choice((1, 1, 4, 64))
        match rng.randrange(6):
            case 0:
                del out[at:]
            case 1:
                del out[at : at + length]
            case 2:
                out[at:at] = rng.randbytes(length)
            case 3:
                out[at : at + length] = rng.randbytes(length)
            case 4:
                out[at:at] = out[at : at + length] * 3
            case _:
                out[at : at + 1] = bytes([rng.choice((0, 0x7F, 0x80, 0xC1, 0xDD, 0xDF, 0xC6, 255))])
    return bytes(out)


def _structure(message: Any, rng: random.Random) -> None:
    """Replace, remove or rename one value somewhere in ``message``."""
    places = [(node, key) for node in _nodes(message) for key in _keys(node)]
    if not places:
        return
    node, key = rng.choice(places)
    match rng.randrange(5):
        case 0:
            del node[key]
        case 1 if isinstance(node, dict):
            name = rng.choice([k for n in _nodes(message) for k in _keys(n)])
            node[name] = node.pop(key)
        case _:
            node[key] = copy.deepcopy(rng.choice(STRANGE))


def _nodes(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value[:4]:
            yield from _nodes(inner)


def _keys(node: Any) -> list[Any]:
    return list(node) if isinstance(node, dict) else list(range(min(len(node), 4)))
