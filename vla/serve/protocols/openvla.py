"""The REST protocol of OpenVLA: JSON with arrays as json-numpy writes them."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any
from urllib.parse import quote

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from vla.config import register
from vla.serve.protocols.arrays import fields_of, to_array
from vla.serve.protocols.base import Protocol
from vla.serve.service import PolicyService, RequestError


@register("protocol", "openvla")
class OpenVla(Protocol):
    """OpenVLA's ``POST /act``; requests are independent, so the policy must not need history."""

    urls = ("http://{address}/act (OpenVLA)",)

    def routes(self, service: PolicyService) -> list[BaseRoute]:
        """One POST route."""

        async def act(request: Request) -> Response:
            body, is_string = from_json(await request.body())
            fields = fields_of(body)
            instruction = fields.pop("instruction", None)
            observation = await run_in_threadpool(
                service.observation, fields, instruction, client=None
            )
            chunks, plans = await run_in_threadpool(service.runner.predict, [None], [observation])
            actions = service.runner.actions_to_execute(None, chunks[0])
            headers = {"X-Plan": quote(plans[0])} if plans[0] else {}
            reply = to_json(actions[0] if len(actions) == 1 else actions, is_string)
            return Response(reply, media_type="application/json", headers=headers)

        return [Route("/act", act, methods=["POST"])]


def from_json(body: bytes) -> tuple[dict[str, Any], bool]:
    """One request, and True if it is a JSON string in the field ``encoded``, as some clients send.

    The reply to such a request must be a JSON string as well.

    Raises:
        RequestError: not a JSON object, or an invalid array.
    """
    try:
        request = json.loads(body, object_hook=_from_json)
        is_string = isinstance(request, dict) and set(request) == {"encoded"}
        if is_string:
            request = json.loads(request["encoded"], object_hook=_from_json)
    except RequestError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise RequestError(f"not JSON ({error})") from error
    if not isinstance(request, dict):
        raise RequestError("expected a JSON object")
    return request, is_string


def to_json(value: np.ndarray, as_string: bool) -> str:
    """One array as json-numpy writes it; ``as_string``: as a JSON string that contains it."""
    encoded = {
        "__numpy__": base64.b64encode(np.ascontiguousarray(value).tobytes()).decode(),
        "dtype": value.dtype.str,
        "shape": value.shape,
    }
    text = json.dumps(encoded)
    return json.dumps(text) if as_string else text


def _from_json(value: dict[str, Any]) -> Any:
    if "__numpy__" not in value:
        return value
    try:
        data = base64.b64decode(value["__numpy__"], validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise RequestError(f"an array that is not base64 ({error})") from error
    return to_array(data, value.get("dtype"), value.get("shape"))
