"""One observation through every way to use a policy, to check that the actions are the same."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from starlette.types import ASGIApp, Message

from vla.inference.inputs import Observation
from vla.inference.runner import PolicyRunner
from vla.policies.bound import BoundPolicy
from vla.policies.execution import Execution
from vla.serve.access import KEY
from vla.serve.client import pack
from vla.serve.protocols.openpi import unpack
from vla.serve.protocols.openvla import from_json, to_json
from vla.serve.server import all_protocols, make_app
from vla.serve.service import PolicyService


def answers(policy: BoundPolicy, observation: Observation) -> dict[str, np.ndarray]:
    """Action chunks (H, A) in robot units for the first frame of an episode, by way of use.

    The ways are ``act``, ``PolicyRunner`` (closed-loop and offline evaluation), ``openpi`` and
    ``OpenVLA`` (the server's protocols, without a network). A policy with frame history has
    neither ``act`` nor ``OpenVLA``.

    Args:
        policy: a policy bound to one robot.
        observation: as for ``PolicyRunner``; the images may have any size.

    Raises:
        ValueError: the observation does not fit the policy, or the server refuses it.
    """
    found = {"PolicyRunner": PolicyRunner(policy).predict([0], [observation])[0][0]}
    text, state = observation["instruction"], observation.get("state")
    whole_chunks = PolicyService(policy, execution=Execution())
    app = make_app(whole_chunks, all_protocols())
    given = {} if state is None else {"state": np.asarray(state)}
    fields = {**{k: np.asarray(v) for k, v in observation["images"].items()}, **given}
    found["openpi"] = asyncio.run(_openpi(app, fields | {"prompt": text}))
    if policy.spec.history == 1:
        found["act"] = policy.act(dict(observation["images"]), text, state)
        reply = asyncio.run(_openvla(app, {"instruction": text}, fields))
        found["OpenVLA"] = reply.reshape(found["act"].shape)
    return found


def _scope(kind: str, path: str) -> dict[str, Any]:
    key = f"Api-Key {os.environ.get(KEY, '')}".encode()
    return {
        "type": kind,
        "path": path,
        "method": "POST",
        "query_string": b"chunk=true",
        "headers": [(b"host", b"localhost"), (b"authorization", key)],
        "subprotocols": [],
    }


async def _openpi(app: ASGIApp, request: dict[str, Any]) -> np.ndarray:
    """Actions of the reply to one message on a new connection."""
    sent: list[Message] = []
    waiting: list[Message] = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "bytes": pack(request)},
        {"type": "websocket.disconnect", "code": 1000},
    ]
    await app(_scope("websocket", "/"), _each(waiting), _into(sent))
    reply = [message for message in sent if message["type"] == "websocket.send"][1]
    if reply.get("bytes") is None:
        raise ValueError(f"openpi: {reply['text']}")
    actions: np.ndarray = unpack(reply["bytes"])["actions"]
    return actions


async def _openvla(
    app: ASGIApp, texts: Mapping[str, str], arrays: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Actions of the reply to one request."""
    body = {**texts, **{k: json.loads(to_json(v, False)) for k, v in arrays.items()}}
    sent: list[Message] = []
    request = {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}
    await app(_scope("http", "/act"), _each([request]), _into(sent))
    content = b"".join(message.get("body", b"") for message in sent)
    if sent[0]["status"] != 200:
        raise ValueError(f"OpenVLA: {content.decode()}")
    actions: np.ndarray = from_json(b'{"actions": ' + content + b"}")[0]["actions"]
    return actions


def _each(messages: list[Message]) -> Any:
    async def receive() -> Message:
        return messages.pop(0)

    return receive


def _into(sent: list[Message]) -> Any:
    async def send(message: Message) -> None:
        sent.append(message)

    return send
