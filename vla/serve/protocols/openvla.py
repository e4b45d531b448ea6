"""The REST protocol of OpenVLA: JSON with arrays as json-numpy writes them, lists or images."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any
from urllib.parse import quote

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from vla.config import register
from vla.serve.protocols.arrays import ImageDecoder, fields_of, to_array
from vla.serve.protocols.base import Protocol
from vla.serve.protocols.messages import read_json
from vla.serve.service import PolicyService, RequestError

# A data URL of an image, or the first characters of a PNG or JPEG in base64.
_IMAGE = re.compile(r"data:image/[\w.+-]+;base64,|(?=iVBORw0KGgo|/9j/)")
_OFT = "full_image"  # the field by which OpenVLA-OFT's requests are known


@register("protocol", "openvla")
class OpenVla(Protocol):
    """OpenVLA's ``POST /act``; requests are independent, so the policy must not need history.

    The reply is the first action of the chunk. With ``chunk=true``, in the URL or in the request,
    it is all actions to execute; a request of OpenVLA-OFT gets them as a list.
    """

    urls = ("http://{address}/act (OpenVLA)",)

    def routes(self, service: PolicyService) -> list[BaseRoute]:
        """One POST route."""

        async def act(request: Request) -> Response:
            message = await request.body()
            size = len(message)
            fields, is_string = await service.off_loop(read_request, message, size=size)
            chunk = fields.pop("chunk", request.query_params.get("chunk", "false"))
            whole = {"true": True, "false": False}.get(str(chunk).lower())
            if whole is None:
                raise RequestError(f"chunk: expected true or false, got {ascii(chunk)[:100]}")
            answer = await service.answer(fields, fields.pop("instruction", None), size=size)
            actions: Any = answer.actions if whole else answer.actions[0]
            headers = {"X-Plan": quote(answer.plan)} if answer.plan else {}
            reply = to_json([*answer.actions] if _OFT in fields else actions, is_string)
            return Response(reply, media_type="application/json", headers=headers)

        return [Route("/act", act, methods=["POST"])]


def read_request(body: bytes) -> tuple[dict[str, Any], bool]:
    """Flat names to arrays and texts, and True if the reply has to be a JSON string.

    Some clients send the request as a JSON string in the field ``encoded``. Texts that are PNG or
    JPEG images in base64 become arrays.

    Raises:
        RequestError: not a JSON object, or an invalid array or image.
    """
    request, is_string = from_json(body)
    fields, decode = fields_of(request), ImageDecoder()
    for name, value in fields.items():
        if isinstance(value, str) and name != "instruction" and (start := _IMAGE.match(value)):
            fields[name] = decode(_from_base64(value[start.end() :]), ascii(name)[1:-1][:100])
    return fields, is_string


def from_json(body: bytes) -> tuple[dict[str, Any], bool]:
    """The JSON object of a request, and True if it was a JSON string in the field ``encoded``.

    Raises:
        RequestError: not a JSON object, or an invalid array.
    """
    request = read_json(body, _from_json)
    if set(request) != {"encoded"}:
        return request, False
    if not isinstance(request["encoded"], str):
        raise RequestError("encoded: expected a text with a JSON object")
    return read_json(request["encoded"], _from_json), True


def to_json(value: np.ndarray | list[np.ndarray], as_string: bool) -> str:
    """One array, or a list of arrays, as json-numpy writes it.

    ``as_string``: as a JSON string that contains it.
    """
    text = json.dumps([*map(_encoded, value)] if isinstance(value, list) else _encoded(value))
    return json.dumps(text) if as_string else text


def _encoded(value: np.ndarray) -> dict[str, Any]:
    return {
        "__numpy__": base64.b64encode(np.ascontiguousarray(value).tobytes()).decode(),
        "dtype": value.dtype.str,
        "shape": value.shape,
    }


def _from_json(value: dict[str, Any]) -> Any:
    if "__numpy__" not in value:
        return value
    return to_array(_from_base64(value["__numpy__"]), value.get("dtype"), value.get("shape"))


def _from_base64(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise RequestError(
            f"an array that is not base64 ({ascii(str(error))[1:-1][:100]})"
        ) from error
