"""Valid messages of every protocol as plain data, and how the server reads and checks them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
from fake_policies import SummingPolicy
from PIL import Image
from protocol_clients import service_of

from vla.serve.protocols.arrays import fields_of, to_npy
from vla.serve.protocols.gr00t import _from_msgpack, observation_fields
from vla.serve.protocols.messages import read_msgpack
from vla.serve.protocols.openpi import unpack
from vla.serve.protocols.openvla import read_request
from vla.serve.protocols.vla_eval import read_envelope

CAMERAS = ("top", "wrist")
PIXELS = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
STATE = np.array([0.5, -1.0], np.float32)


def png(pixels: np.ndarray = PIXELS, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def _array(array: np.ndarray, key: Any = str) -> dict[Any, Any]:
    fields = {"__ndarray__": True, "data": array.tobytes(), "dtype": array.dtype.str}
    return {key(k): v for k, v in fields.items()} | {key("shape"): list(array.shape)}


def _numpy(array: np.ndarray) -> dict[str, Any]:
    data = base64.b64encode(array.tobytes()).decode()
    return {"__numpy__": data, "dtype": array.dtype.str, "shape": list(array.shape)}


def _npy(array: np.ndarray) -> dict[str, Any]:
    return {"__ndarray_class__": True, "as_npy": to_npy(array)}


def _image(kind: str) -> dict[str, Any]:
    return {"__image__": True, "format": kind, "data": png(kind=kind), "shape": [8, 8, 3]}


def openpi_message() -> dict[str, Any]:
    scalar = {b"__npgeneric__": True, b"data": 1.5, b"dtype": "<f4"}
    images = {"top": _array(PIXELS, str.encode), "wrist": _array(PIXELS / 255, str.encode)}
    return {"images": images, "state": _array(STATE, str.encode), "gain": scalar, "prompt": "go"}


def openvla_message() -> dict[str, Any]:
    url = "data:image/jpeg;base64," + base64.b64encode(png(kind="JPEG")).decode()
    body = {"top": _numpy(PIXELS), "wrist": PIXELS[:2, :2].tolist(), "full_image": url}
    return body | {"state": [0.5, -1], "instruction": "go", "chunk": True, "unnorm_key": None}


def vla_eval_message() -> dict[str, Any]:
    raw = _array(PIXELS) | {"__image__": True, "format": "raw"}
    images = {"top": _image("png"), "wrist": raw, "side": _image("jpeg")}
    payload = {"images": images, "states": _array(STATE), "task_description": "go"}
    return {"type": "observation", "payload": payload, "seq": 3, "timestamp": 1.5}


def gr00t_message() -> dict[str, Any]:
    video = {"top": _npy(PIXELS[None, None]), "wrist": _npy(np.asfortranarray(PIXELS))}
    language = {"annotation.human.task_description": [["go"]]}
    seen = {"video": video, "state": {"arm": _npy(STATE[None, None])}, "language": language}
    data = {"observation": seen, "options": None}
    return {"endpoint": "get_action", "data": data, "api_token": "secret"}


def _openpi(message: bytes) -> tuple[dict[str, Any], Any]:
    fields = fields_of(unpack(message))
    return fields, fields.get("prompt")


def _openvla(message: bytes) -> tuple[dict[str, Any], Any]:
    fields, _ = read_request(message)
    return fields, fields.pop("instruction", None)


def _vla_eval(message: bytes) -> tuple[dict[str, Any], Any]:
    _, payload, _ = read_envelope(message)
    fields = fields_of(payload)
    fields.setdefault("state", fields.get("states"))
    return fields, fields.get("task_description")


def _gr00t(message: bytes) -> tuple[dict[str, Any], Any]:
    data = read_msgpack(message, _from_msgpack).get("data")
    seen = data.get("observation") if isinstance(data, dict) else None
    return observation_fields(seen if isinstance(seen, dict) else {})


def to_msgpack(message: Any) -> bytes:
    return msgpack.packb(message, use_bin_type=True, unicode_errors="surrogatepass")


def to_json(message: Any) -> bytes:
    def text(value: Any) -> str:
        return base64.b64encode(value).decode()

    return json.dumps(message, default=text, skipkeys=True).encode()


@dataclass(frozen=True)
class Format:
    """One protocol. read: a message to fields and instruction, as its handler does."""

    message: Callable[[], dict[str, Any]]
    write: Callable[[Any], bytes]
    read: Callable[[bytes], tuple[dict[str, Any], Any]]
    array: Callable[[Any, Any, bytes], Any]  # (dtype, shape, data) as this protocol writes it


FORMATS = {
    "openpi": Format(
        openpi_message,
        to_msgpack,
        _openpi,
        lambda t, s, d: {b"__ndarray__": True, b"data": d, b"dtype": t, b"shape": s},
    ),
    "openvla": Format(
        openvla_message,
        to_json,
        _openvla,
        lambda t, s, d: {"__numpy__": base64.b64encode(d).decode(), "dtype": t, "shape": s},
    ),
    "vla_eval": Format(
        vla_eval_message,
        to_msgpack,
        _vla_eval,
        lambda t, s, d: {"__ndarray__": True, "data": d, "dtype": t, "shape": s},
    ),
    "gr00t": Format(
        gr00t_message,
        to_msgpack,
        _gr00t,
        lambda t, s, d: {"__ndarray_class__": True, "as_npy": npy(t, s, d)},
    ),
}


def npy(dtype: Any, shape: Any, data: bytes) -> bytes:
    """A .npy file with any header."""
    sizes = tuple(shape) if isinstance(shape, list) else shape
    header = repr({"descr": dtype, "fortran_order": False, "shape": sizes}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


SERVICE = service_of(SummingPolicy(CAMERAS, state_dim=2))


def observation(name: str, message: bytes) -> dict[str, Any]:
    """The observation of a message; RequestError if the server refuses it."""
    fields, instruction = FORMATS[name].read(message)
    return dict(SERVICE.observation(fields, instruction, object()))
