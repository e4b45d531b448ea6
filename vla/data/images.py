"""Encoding of images: JPEG for small shards, or PPM, which is lossless and fast to read."""

from __future__ import annotations

import io
import re
from typing import Literal

import numpy as np
import simplejpeg
from PIL import Image

from vla.errors import BadSample

Encoding = Literal["jpeg", "ppm"]
Flip = Literal["rows", "columns", "both"]
_AXES: dict[Flip, tuple[int, ...]] = {"rows": (0,), "columns": (1,), "both": (0, 1)}
JPEG_QUALITY = 92
MAX_IMAGE_PX = 4096  # largest side; larger images are refused before they are decoded
_JPEG = b"\xff\xd8"
_PPM = re.compile(
    rb"P6\s(\d{1,5})\s(\d{1,5})\s255\s"
)  # as ``encode_image`` writes it; Pillow reads others


def flip_image(image: np.ndarray, flip: Flip | None) -> np.ndarray:
    """An image (H, W) or (H, W, 3) with its rows, columns or both in reverse order."""
    return np.ascontiguousarray(np.flip(image, _AXES[flip])) if flip else image


def encode_image(image: np.ndarray, encoding: Encoding = "jpeg") -> bytes:
    """(H, W, 3) uint8 to bytes. PPM (netpbm's P6) is several times larger than JPEG."""
    buffer = io.BytesIO()
    pil = Image.fromarray(image)
    if encoding == "ppm":
        pil.save(buffer, "PPM")
    else:
        pil.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def decode_image(data: bytes | memoryview, where: str) -> np.ndarray:
    """JPEG, PPM or PNG bytes to (H, W, 3) uint8; for PPM a read-only view of the bytes.

    Raises:
        BadSample: not an image, a damaged one, or a side above ``MAX_IMAGE_PX``; the message
            begins with ``where``.
    """
    try:
        if data[:2] == _JPEG:
            _check_size(simplejpeg.decode_jpeg_header(data)[:2], where)
            pixels = simplejpeg.decode_jpeg(data, "RGB")
        elif plain := _PPM.match(data):
            width, height = int(plain[1]), int(plain[2])
            _check_size((width, height), where)
            pixels = np.frombuffer(data, np.uint8, offset=plain.end()).reshape(height, width, 3)
        else:
            with Image.open(io.BytesIO(data)) as image:
                _check_size(image.size, where)
                pixels = np.asarray(image.convert("RGB"))
    except BadSample:
        raise
    except (OSError, ValueError) as error:
        raise BadSample(
            f"{where}: unreadable image ({error}); run `vla data verify` on the data set"
        ) from error
    return pixels


def _check_size(sides: tuple[int, int], where: str) -> None:
    if max(sides) > MAX_IMAGE_PX:
        raise BadSample(
            f"{where}: image of {sides} px is larger than {MAX_IMAGE_PX}; resize it when packing"
        )
