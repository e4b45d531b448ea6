"""Images as formats store them, encoded or as arrays, to (H, W, 3) uint8 colour or to depth."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterable

import numpy as np
import simplejpeg
from PIL import Image

from vla.data.readers.files import LFS_POINTER, SKIP_BAD
from vla.errors import BadSample

MAX_SIDE_PX = 16384  # larger images are refused before they are decoded
# Floats of one channel above 1 and up to this are distances in metres, above it grey levels.
_METRES = 20.0
_PNG = b"\x89PNG\r\n\x1a\n"
_DEPTH_NAME = re.compile(r"(^|[^a-z])depth", re.IGNORECASE)


def is_depth(name: str, channels: int | None = None) -> bool:
    """True if a camera's name says depth and it has one channel (``None``: unknown)."""
    return bool(_DEPTH_NAME.search(name)) and channels in (1, None)


def decode_pixels(
    value: bytes | bytearray | memoryview | np.ndarray,
    where: str,
    *,
    depth: bool = False,
    channels_first: bool | None = None,
    peak: float | None = None,
) -> np.ndarray:
    """(H, W, 3) uint8 colour, or (H, W) distances as recorded.

    An image of one channel is depth if it has 16-bit integers, or floats or larger integers above
    the range of grey levels, or if ``depth`` is true and it has more than 8 bits. Other images of
    one channel are grey: all three colours are equal. Alpha is dropped.

    Args:
        value: encoded bytes (JPEG, PNG, WebP, ...), also as a uint8 vector; or an array with
            shape (H, W), (H, W, C) or (C, H, W), C in 1, 3, 4, and 8-bit or 16-bit integers,
            booleans, or floats from 0 to 1 or from 0 to 255.
        where: file, episode and row; error messages begin with it.
        depth: the format declares distances.
        channels_first: declared layout of arrays; None: the axis of size 1, 3 or 4.
        peak: largest value of this camera over the data set, see ``peak_of``; it tells 0 to 1
            from 0 to 255 also in a dark image. None: the largest value of this image.

    Raises:
        BadSample: not an image, a damaged one, or values or shapes with no clear meaning.
    """
    if not isinstance(value, np.ndarray):
        return _from_bytes(bytes(value), where)
    if value.ndim == 1 and value.dtype == np.uint8:
        return _from_bytes(value.tobytes(), where)
    return _from_array(value, where, depth, channels_first, peak)


def peak_of(images: Iterable[np.ndarray]) -> float:
    """The largest finite value of some images of one camera, for ``decode_pixels``."""
    peaks = [float(i[np.isfinite(i)].max(initial=0)) for i in map(np.asarray, images)]
    return max(peaks, default=0.0)


def depth_to_grey(distances: np.ndarray, range_mm: tuple[float, float]) -> np.ndarray:
    """(H, W) distances to (H, W, 3) uint8: the range becomes 0 to 255, values outside are clipped.

    Integers are mm, floats are m. Pixels without a measurement (0, NaN, infinite) become 0.
    """
    mm = distances.astype(np.float64) * (1000.0 if distances.dtype.kind == "f" else 1.0)
    mm = np.where(np.isfinite(mm), mm, 0.0)
    near, far = range_mm
    grey = np.clip((mm - near) / (far - near), 0.0, 1.0) * 255.0
    grey = np.where(mm > 0, np.round(grey), 0.0).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _from_bytes(data: bytes, where: str) -> np.ndarray:
    if data.startswith(LFS_POINTER):
        raise BadSample(f"{where}: a Git LFS pointer, not an image; run `git lfs pull`")
    try:
        if data[:2] == b"\xff\xd8":
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            _check_size((width, height), where)
            if colours in ("Gray", "YCbCr", "RGB"):  # strict, unlike Pillow: errors are not hidden
                return simplejpeg.decode_jpeg(data, "RGB")
        if data.startswith(_PNG):
            _check_png(data)
        with Image.open(io.BytesIO(data)) as image:
            _check_size(image.size, where)
            if image.mode.startswith("I") or image.mode == "F":  # 16 bits, 32 bits, floats
                return np.array(image)
            return np.asarray(image.convert("RGB"))
    except BadSample:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error and more
        reason = re.sub(r" <_io.*", "", str(error)).partition("\n")[0] or type(error).__name__
        raise BadSample(f"{where}: unreadable image ({reason}); {SKIP_BAD}") from error


def _check_png(data: bytes) -> None:
    """Compare the checksums of a PNG's chunks, which Pillow does not do for pixels.

    Raises:
        ValueError: a wrong checksum, a missing end, or a second header, which Pillow would follow.
    """
    at = len(_PNG)
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ValueError("wrong checksum in a PNG")
        if data[at + 4 : at + 8] == b"IHDR" and at > len(_PNG):
            raise ValueError("a PNG with two headers")
        if data[at + 4 : at + 8] == b"IEND":
            return
        at = end + 4
    raise ValueError("truncated PNG")


def _check_size(sides: tuple[int, int], where: str) -> None:
    if max(sides) > MAX_SIDE_PX:
        raise BadSample(
            f"{where}: image of {sides[0]} x {sides[1]} px; the largest side is {MAX_SIDE_PX} px"
        )


def _from_array(
    value: np.ndarray, where: str, depth: bool, channels_first: bool | None, peak: float | None
) -> np.ndarray:
    image = _channels_last(value, where, channels_first)
    if image.dtype.kind not in "buif" or image.size == 0:
        raise BadSample(f"{where}: image of type {value.dtype}, shape {value.shape}; {SKIP_BAD}")
    if image.shape[2] == 1 and _is_distances(image, depth, peak):
        return image[..., 0]
    image = _to_uint8(image[..., : min(3, image.shape[2])], where, peak)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else np.ascontiguousarray(image)


def _channels_last(value: np.ndarray, where: str, channels_first: bool | None) -> np.ndarray:
    while value.ndim > 3 and value.shape[0] == 1:
        value = value[0]
    if value.ndim == 2:
        return value[..., None]
    if value.ndim == 3:
        first, last = value.shape[0] in (1, 3, 4), value.shape[2] in (1, 3, 4)
        if channels_first is None and first and last:  # three colours are likelier than one or four
            first, last = value.shape[0] == 3, value.shape[2] == 3
        if channels_first is None and first != last:
            channels_first = first
        if channels_first is not None and (first if channels_first else last):
            return np.moveaxis(value, 0, 2) if channels_first else value
    raise BadSample(
        f"{where}: image of shape {value.shape}; expected (H, W), (H, W, C) or (C, H, W) "
        f"with 1, 3 or 4 channels; {SKIP_BAD}"
    )


def _is_distances(image: np.ndarray, depth: bool, peak: float | None) -> bool:
    """Whether an image of one channel has distances instead of grey levels."""
    if image.dtype in (np.uint8, np.bool_):
        return False
    if depth or image.dtype == np.uint16:
        return True
    top = peak_of([image]) if peak is None else peak
    return 1.0 < top <= _METRES or top > 255.5 if image.dtype.kind == "f" else top > 255


def _to_uint8(image: np.ndarray, where: str, peak: float | None) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.bool_:
        return image.astype(np.uint8) * 255
    low, high = float(image.min()), float(image.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise BadSample(f"{where}: image with NaN or infinite values; {SKIP_BAD}")
    top = high if peak is None else max(high, peak)
    if image.dtype == np.uint16 and top > 255:
        return (image >> 8).astype(np.uint8)
    if low < 0 or high > 255.5:
        raise BadSample(
            f"{where}: image with values from {low:g} to {high:g}; expected 0 to 255, or floats "
            f"from 0 to 1; {SKIP_BAD}"
        )
    if image.dtype.kind == "f":
        image = np.round(image * (255.0 if top <= 1.0 else 1.0))
    return image.astype(np.uint8)
