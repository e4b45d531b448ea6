"""Arrays in requests: raw bytes with a dtype and a shape. Only numbers; nothing is unpickled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from vla.policies.names import flatten
from vla.serve.service import RequestError

MAX_DIMS = 8  # dimensions of an array


def to_array(data: Any, dtype: Any, shape: Any) -> np.ndarray:
    """A read-only array over ``data``.

    Raises:
        RequestError: not a numeric dtype, or not as many bytes as dtype and shape need.
    """
    kind = number_type(dtype)
    try:
        dims = tuple(int(n) for n in shape)
    except (TypeError, ValueError) as error:
        raise RequestError(f"invalid array: shape {str(shape)[:100]}") from error
    needed = math.prod(dims) * kind.itemsize
    if len(dims) > MAX_DIMS or min(dims, default=1) < 1:
        raise RequestError(f"an array of shape {dims[:MAX_DIMS]} is not accepted")
    if not isinstance(data, bytes) or needed != len(data):
        raise RequestError(f"an array of {kind} {dims} needs {needed} bytes")
    return np.frombuffer(data, kind).reshape(dims)


def number_type(dtype: Any) -> np.dtype[Any]:
    """The dtype of numbers that a request names.

    Raises:
        RequestError: not a dtype, or one of texts, objects or records.
    """
    try:
        kind = np.dtype(dtype)
    except (TypeError, ValueError) as error:
        raise RequestError(f"invalid array: dtype {str(dtype)[:100]}") from error
    if kind.kind not in "biuf":
        raise RequestError(f"an array of dtype {kind} is not accepted; send numbers only")
    return kind


def fields_of(request: dict[str, Any]) -> dict[str, Any]:
    """The fields of a request by flat names, "observation/image".

    Raises:
        RequestError: mappings are nested too deeply.
    """
    try:
        return flatten(request)
    except ValueError as error:
        raise RequestError(str(error)) from error
