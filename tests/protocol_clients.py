"""Clients of the wire protocols, and servers with a fake policy for them."""

from __future__ import annotations

import base64
from typing import Any

import msgpack
import numpy as np
from fake_policies import SummingPolicy
from starlette.testclient import TestClient

from vla.serve.server import all_protocols, make_app
from vla.serve.service import PolicyService

IMAGE = np.full((8, 8, 3), 100, np.uint8)


def service_of(policy: SummingPolicy, *mapping: Any) -> PolicyService:
    return PolicyService(policy, *mapping)  # type: ignore[arg-type]


def http_client(**kind: Any) -> TestClient:
    return TestClient(make_app(service_of(SummingPolicy(**kind)), all_protocols()))


def wire(array: np.ndarray) -> dict[bytes, Any]:
    """An array as openpi's client packs it."""
    return {
        b"__ndarray__": True,
        b"data": array.tobytes(),
        b"dtype": array.dtype.str,
        b"shape": array.shape,
    }


def array(found: dict[Any, Any]) -> np.ndarray:
    return np.frombuffer(found[b"data"], found[b"dtype"]).reshape(found[b"shape"])


def ask(socket: Any, **request: Any) -> Any:
    socket.send_bytes(msgpack.packb(request))
    return msgpack.unpackb(socket.receive_bytes())


def encoded(value: np.ndarray) -> dict[str, Any]:
    """An array as json-numpy writes it."""
    return {
        "__numpy__": base64.b64encode(value.tobytes()).decode(),
        "dtype": value.dtype.str,
        "shape": value.shape,
    }


def decoded(found: dict[str, Any]) -> np.ndarray:
    data = base64.b64decode(found["__numpy__"])
    return np.frombuffer(data, found["dtype"]).reshape(found["shape"])
