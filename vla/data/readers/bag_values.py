"""Images, numbers and texts in ROS 2 and JSON messages."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from vla.data.readers.files import SKIP_BAD
from vla.data.readers.pixels import decode_pixels
from vla.errors import DataError

_MAX_NUMBERS = 512  # per message; longer ones are point clouds, maps and other data
_SKIPPED = ("header", "stamp", "timestamp", "layout", "covariance")
_NOT_READ = {"PointCloud2", "CameraInfo", "TFMessage", "CompressedVideo", "Log", "LaserScan"}
# Encoding of sensor_msgs/Image -> (type, channels, order of red, green and blue).
_ENCODINGS: dict[str, tuple[str, int, tuple[int, ...]]] = {
    "rgb8": ("u1", 3, (0, 1, 2)),
    "8UC3": ("u1", 3, (2, 1, 0)),
    "bgr8": ("u1", 3, (2, 1, 0)),
    "rgba8": ("u1", 4, (0, 1, 2)),
    "bgra8": ("u1", 4, (2, 1, 0)),
    "8UC4": ("u1", 4, (2, 1, 0)),
    "mono8": ("u1", 1, (0,)),
    "8UC1": ("u1", 1, (0,)),
    "mono16": ("u2", 1, (0,)),
    "16UC1": ("u2", 1, (0,)),
    "32FC1": ("f4", 1, (0,)),
}
_DEPTH = ("mono16", "16UC1", "32FC1")
_COMPRESSED_DEPTH_HEADER = 12  # bytes before the PNG in the transport compressedDepth


def short_type(name: str) -> str:
    """``JointState`` of ``sensor_msgs/msg/JointState``, ``RawImage`` of ``foxglove.RawImage``."""
    return re.split(r"[/.]", name)[-1]


def members(message: Any) -> dict[str, Any]:
    """The fields of a message by name; empty for plain values."""
    if isinstance(message, Mapping):
        return dict(message)
    names = getattr(type(message), "__slots__", None)
    if isinstance(names, (list, tuple)) and all(hasattr(message, n) for n in names):
        return {n: getattr(message, n) for n in names}
    fields = getattr(message, "__dataclass_fields__", {})
    return {n: getattr(message, n) for n in fields if not n.startswith("__")}


def is_image(kind: str) -> bool:
    """True for messages with one image."""
    return short_type(kind) in ("Image", "RawImage", "CompressedImage")


def is_read(kind: str) -> bool:
    """False for types that have neither images nor measured numbers, or too many."""
    return short_type(kind) not in _NOT_READ


def is_depth_image(message: Any) -> bool:
    """True if an image message has distances."""
    found = members(message)
    encoding = str(found.get("encoding", found.get("format", "")))
    return encoding in _DEPTH or "compressedDepth" in encoding or encoding.startswith("16UC1")


def image_of(message: Any, where: str, depth: bool) -> np.ndarray:
    """(H, W, 3) uint8, or (H, W) distances.

    Raises:
        DataError, BadSample: an encoding that is not read, or a damaged image.
    """
    found = members(message)
    data = found.get("data", b"")
    data = base64.b64decode(data) if isinstance(data, str) else bytes(data)
    if "encoding" not in found:
        if "compressedDepth" in str(found.get("format", "")):
            data = data[_COMPRESSED_DEPTH_HEADER:]
        return decode_pixels(data, where, depth=depth)
    encoding, height, width = str(found["encoding"]), int(found["height"]), int(found["width"])
    if encoding not in _ENCODINGS:
        raise DataError(
            f"{where}: encoding {encoding!r} is not read; expected one of "
            f"{', '.join(_ENCODINGS)}, or record the color topic of image_proc"
        )
    kind, channels, order = _ENCODINGS[encoding]
    dtype = np.dtype(kind).newbyteorder(">" if found.get("is_bigendian") else "<")
    step = int(found.get("step") or width * channels * dtype.itemsize)
    needed = width * channels * dtype.itemsize
    if height < 1 or width < 1 or step < needed or len(data) != height * step:
        raise DataError(
            f"{where}: {len(data)} bytes for {height} rows of {step} bytes ({width} px); {SKIP_BAD}"
        )
    rows = np.frombuffer(data, np.uint8).reshape(height, step)[:, :needed]
    pixels = np.ascontiguousarray(rows).view(dtype).reshape(height, width, channels)
    pixels = pixels[..., order].astype(dtype.newbyteorder("="))
    return decode_pixels(pixels, where, depth=depth)


def text_of(message: Any) -> str | None:
    """The text of a message that has nothing else, such as std_msgs/String."""
    found = {k: v for k, v in members(message).items() if k not in _SKIPPED}
    values = list(found.values())
    return values[0] if len(values) == 1 and isinstance(values[0], str) else None


def numbers_of(message: Any, where: str) -> dict[str, float]:
    """The numbers of a message by the names of its fields, such as ``pose.position.x``.

    Raises:
        DataError: more numbers than a vector of measurements has.
    """
    found: dict[str, float] = {}
    for name, value in _leaves(message, ""):
        found[name] = value
        if len(found) > _MAX_NUMBERS:
            raise DataError(f"{where}: more than {_MAX_NUMBERS} numbers in a message")
    return found


def _leaves(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, (bool, int, float, np.number, np.bool_)):
        yield name or "data", float(value)
    elif isinstance(value, (list, tuple, np.ndarray)):
        for n, item in enumerate(value):
            yield from _leaves(item, f"{name}_{n}")
    elif not isinstance(value, (str, bytes, type(None))):
        for key, inner in members(value).items():
            if key not in _SKIPPED:
                yield from _leaves(inner, f"{name}.{key}" if name else key)


def joints_of(message: Any) -> dict[str, dict[str, float]]:
    """Joint -> position, velocity and effort, as far as a JointState has them."""
    found = members(message)
    parts = {p: list(found.get(p, ())) for p in ("position", "velocity", "effort")}
    names = [str(n) for n in found.get("name", ())]
    names = names or [f"joint_{n}" for n in range(len(parts["position"]))]
    return {
        joint: {p: float(v[n]) for p, v in parts.items() if len(v) == len(names)}
        for n, joint in enumerate(names)
    }
