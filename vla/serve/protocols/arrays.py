"""Arrays in requests: raw bytes with a dtype and a shape. Only numbers; nothing is unpickled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from vla.serve.service import RequestError


def to_array(data: Any, dtype: Any, shape: Any) -> np.ndarray:
    """A read-only array over ``data``.

    Raises:
        RequestError: not a numeric dtype, or not as many bytes as dtype and shape need.
    """
    try:
        kind = np.dtype(dtype)
        dims = tuple(int(n) for n in shape)
    except (TypeError, ValueError) as error:
        raise RequestError(f"invalid array: dtype {dtype!r}, shape {shape!r}") from error
    if kind.kind not in "biuf":
        raise RequestError(f"an array of dtype {kind} is not accepted; send numbers only")
    needed = math.prod(dims) * kind.itemsize
    if not isinstance(data, bytes) or min(dims, default=0) < 0 or needed != len(data):
        raise RequestError(f"an array of {kind} {dims} needs {needed} bytes")
    return np.frombuffer(data, kind).reshape(dims)


def flatten(request: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with slash-separated names."""
    flat: dict[str, Any] = {}
    for name, value in request.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
