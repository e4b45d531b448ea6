"""Arrays on the wire: msgpack as openpi's client packs them, JSON as json-numpy does. Only plain numbers; nothing is unpickled."""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any

import msgpack
import numpy as np

from vla.serve.engine import RequestError

MAX_BYTES = 64 * 2**20  # of one message


def _array(data: Any, dtype: Any, shape: Any) -> np.ndarray:
    """Raises RequestError for anything but numbers of the size that shape says."""
    try:
        kind = np.dtype(dtype)
        dims = tuple(int(n) for n in shape)
    except (TypeError, ValueError) as error:
        raise RequestError(f"an array with dtype {dtype!r} and shape {shape!r} cannot be read") from error
    if kind.kind not in "biuf":
        raise RequestError(f"an array of dtype {kind} is not accepted: numbers only")
    if not isinstance(data, bytes) or min(dims, default=0) < 0 or math.prod(dims) * kind.itemsize != len(data):
        raise RequestError(f"an array of {kind} {dims} needs {math.prod(dims) * kind.itemsize} bytes")
    return np.frombuffer(data, kind).reshape(dims)


def _from_msgpack(found: dict[Any, Any]) -> Any:
    if b"__ndarray__" in found:
        return _array(found.get(b"data"), found.get(b"dtype"), found.get(b"shape"))
    if b"__npgeneric__" in found:
        return _array(np.asarray(found.get(b"data"), found.get(b"dtype")).tobytes(), found.get(b"dtype"), ()).item()
    return found


def _to_msgpack(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"cannot send a {type(value).__name__}")


def unpack(message: bytes) -> dict[str, Any]:
    """One msgpack observation.

    Raises:
        RequestError: not msgpack, not a mapping with names, or an array that is none.
    """
    try:
        found = msgpack.unpackb(message, object_hook=_from_msgpack, strict_map_key=False)
    except RequestError:
        raise
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise RequestError(f"not a msgpack message ({error})") from error
    if not isinstance(found, dict) or not all(isinstance(k, str) for k in found):
        raise RequestError("expected a mapping of names to arrays and texts")
    return found


def pack(value: dict[str, Any]) -> bytes:
    """The inverse."""
    return msgpack.packb(value, default=_to_msgpack, use_bin_type=True)


def flat(observation: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings to slash-separated names."""
    out: dict[str, Any] = {}
    for name, value in observation.items():
        out |= flat(value, f"{prefix}{name}/") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return out


def _from_json(found: dict[str, Any]) -> Any:
    if "__numpy__" not in found:
        return found
    try:
        data = base64.b64decode(found["__numpy__"], validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise RequestError(f"an array that is not base64 ({error})") from error
    return _array(data, found.get("dtype"), found.get("shape"))


def from_json(body: bytes) -> tuple[dict[str, Any], bool]:
    """One json-numpy request, and whether it came as a string inside ``encoded`` (the answer must then be one too).

    Raises:
        RequestError: not JSON, not a mapping, or an array that is none.
    """
    try:
        found = json.loads(body, object_hook=_from_json)
        twice = isinstance(found, dict) and set(found) == {"encoded"}
        if twice:
            found = json.loads(found["encoded"], object_hook=_from_json)
    except RequestError:
        raise
    except (ValueError, TypeError) as error:
        raise RequestError(f"not JSON ({error})") from error
    if not isinstance(found, dict):
        raise RequestError("expected a JSON object")
    return found, twice


def to_json(value: np.ndarray, twice: bool) -> str:
    """A bare array as json-numpy writes it."""
    made = {
        "__numpy__": base64.b64encode(np.ascontiguousarray(value).tobytes()).decode(),
        "dtype": value.dtype.str,
        "shape": value.shape,
    }
    text = json.dumps(made)
    return json.dumps(text) if twice else text
