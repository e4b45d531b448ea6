"""Arrays, numbers and images in messages. Headers are checked before memory is used."""

from __future__ import annotations

import io
import math
import re
from itertools import chain
from typing import Any

import numpy as np
import simplejpeg

from vla.data.readers.pixels import decode_pixels
from vla.errors import BadSample
from vla.policies.names import flatten
from vla.policies.observations import MAX_SIDE
from vla.serve.service import RequestError

MAX_DIMS = 8  # dimensions of an array
MAX_PIXELS = 2**23  # of all encoded images of one message
_CODE = re.compile(r"[<>=|]?(b1|\?|[iu][1248]|f[248])")
_NAME = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)")
_PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_JPEG = b"\xff\xd8\xff"


def number_type(dtype: Any) -> np.dtype[Any]:
    """The dtype of booleans, whole numbers or floats of at most 8 bytes that a message names.

    Raises:
        RequestError: another dtype, for example one of texts, objects or records.
    """
    text = dtype.decode("ascii", "replace") if isinstance(dtype, bytes) else dtype
    if not isinstance(text, str) or not (_CODE.fullmatch(text) or _NAME.fullmatch(text)):
        raise RequestError(
            f"an array of dtype {_shown(dtype)} is not accepted; send numbers only, "
            "for example '|u1' or '<f4'"
        )
    return np.dtype(text)


def to_array(data: Any, dtype: Any, shape: Any) -> np.ndarray:
    """A read-only array over ``data``.

    Raises:
        RequestError: not a dtype of numbers, not a shape, no items in more than one dimension, or
            not as many bytes as dtype and shape need.
    """
    kind = number_type(dtype)
    if (
        not isinstance(shape, list | tuple)
        or len(shape) > MAX_DIMS
        or not all(type(n) is int and (0 < n < 2**31 or len(shape) == 1) for n in shape)
    ):
        raise RequestError(
            f"an array of shape {_shown(shape)} is not accepted; "
            f"expected at most {MAX_DIMS} whole numbers above 0"
        )
    needed = math.prod(shape) * kind.itemsize
    if not isinstance(data, bytes | memoryview) or needed != len(data):
        given = len(data) if isinstance(data, bytes | memoryview) else type(data).__name__
        raise RequestError(f"an array of {kind} {tuple(shape)} needs {needed} bytes, got {given}")
    return np.frombuffer(data, kind).reshape(shape)


def to_number(value: Any, dtype: Any) -> bool | int | float:
    """One number of the given dtype.

    Raises:
        RequestError: not a number, or one that the dtype cannot represent.
    """
    kind = number_type(dtype)
    fits = False
    if kind.kind == "b":
        fits = isinstance(value, bool)
    elif kind.kind == "f" and type(value) in (int, float):
        fits = abs(value) <= float(np.finfo(kind).max) or value in (math.inf, -math.inf)
    elif type(value) is int:
        fits = int(np.iinfo(kind).min) <= value <= int(np.iinfo(kind).max)
    if not fits:
        raise RequestError(f"the number {_shown(value)} is not one of dtype {kind}")
    return float(value) if kind.kind == "f" else value


def from_npy(data: Any) -> np.ndarray:
    """The array of a ``.npy`` file, as ``numpy.save`` writes it.

    Raises:
        RequestError: another file, or an array that ``to_array`` refuses.
    """
    if not isinstance(data, bytes):
        raise RequestError(f"expected the bytes of a .npy file, got {type(data).__name__}")
    file, reader = io.BytesIO(data), np.lib.format
    try:
        read = {(1, 0): reader.read_array_header_1_0, (2, 0): reader.read_array_header_2_0}
        shape, is_fortran, dtype = read[reader.read_magic(file)](file)
    except Exception as error:  # the parser of the header raises many kinds
        raise RequestError("an array that is not a .npy file of version 1 or 2") from error
    shape = tuple(reversed(shape)) if is_fortran else shape
    array = to_array(memoryview(data)[file.tell() :], dtype.str, shape)
    return array.T if is_fortran else array


def to_npy(array: np.ndarray) -> bytes:
    """Inverse of ``from_npy``."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


class ImageDecoder:
    """Decodes the PNG and JPEG images of one message, of at most ``MAX_PIXELS`` together."""

    def __init__(self) -> None:
        self.pixels_left = MAX_PIXELS

    def __call__(self, data: Any, name: str = "image") -> np.ndarray:
        """(H, W, 3) uint8.

        Raises:
            RequestError: not a PNG or JPEG, a damaged one, or too many pixels; the size is read
                from the header before anything is decoded.
        """
        if not isinstance(data, bytes) or not data.startswith((_PNG, _JPEG)):
            raise RequestError(f"{name}: expected the bytes of a PNG or JPEG image")
        try:
            if data.startswith(_JPEG):
                height, width = simplejpeg.decode_jpeg_header(data)[:2]
            else:
                width, height = (int.from_bytes(data[k : k + 4], "big") for k in (16, 20))
            self.pixels_left -= width * height
            if max(height, width) > MAX_SIDE or self.pixels_left < 0:
                raise RequestError(
                    f"{name}: an image of {width} x {height} px; at most {MAX_SIDE} px a side and "
                    f"{MAX_PIXELS} px in all encoded images of a message"
                )
            return decode_pixels(data, name)
        except (BadSample, ValueError) as error:
            if isinstance(error, RequestError):
                raise
            reason = str(error).removeprefix(f"{name}: unreadable image ").partition(";")[0]
            raise RequestError(f"{name}: unreadable image: {reason}") from error


def fields_of(request: dict[str, Any]) -> dict[str, Any]:
    """The fields of a request by flat names, "observation/image"; lists of numbers as arrays.

    Raises:
        RequestError: mappings are nested too deeply, or a text is not Unicode.
    """
    try:
        fields = flatten(request)
    except ValueError as error:
        raise RequestError(str(error)) from error
    for name, value in fields.items():
        texts = value if isinstance(value, list) else [value]
        if not all(is_unicode(text) for text in [name, *texts] if isinstance(text, str)):
            raise RequestError(f"a text of field {name!a:.100} has half of a surrogate pair")
    return {name: numbers(v) if isinstance(v, list) else v for name, v in fields.items()}


def is_unicode(text: str) -> bool:
    """True if the text can be encoded: it has no half of a surrogate pair."""
    return text.isascii() or not re.search("[\ud800-\udfff]", text)


def numbers(value: list[Any]) -> Any:
    """Nested lists of numbers as an array of int64, float64 or bool; other lists as they are."""
    shape, items = [len(value)], value
    while items and isinstance(items[0], list):
        sizes = {len(item) if isinstance(item, list) else -1 for item in items}
        if len(sizes) > 1 or len(shape) == MAX_DIMS:
            return value
        shape.append(sizes.pop())
        items = list(chain.from_iterable(items))
    kinds = set(map(type, items))
    if not kinds or not kinds <= {int, float, bool}:
        return value
    kind: type = float if float in kinds else int if int in kinds else bool
    try:
        return np.array(items, kind).reshape(shape)
    except OverflowError:  # more than 64 bits
        return value


def _shown(value: Any) -> str:
    """A short ASCII text of a value that may be large or nested."""
    if isinstance(value, list | tuple):
        parts = [
            ascii(v) if type(v) in (int, float) else type(v).__name__ for v in value[:MAX_DIMS]
        ]
        return f"({', '.join(parts)}{', ...' if len(value) > MAX_DIMS else ''})"[:200]
    is_plain = isinstance(value, str | bytes | int | float | None)
    return ascii(value)[:100] if is_plain else type(value).__name__
