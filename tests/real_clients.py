"""A robot program with a published client: observations on stdin, actions on stdout.

Run by an interpreter that has the client: ``python real_clients.py KIND HOST:PORT``. It imports
nothing of this package.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np


def openpi(address: str) -> Callable[..., Any]:
    from openpi_client.websocket_client_policy import WebsocketClientPolicy

    host, port = address.split(":")
    state: dict[str, Any] = {}

    def act(image: np.ndarray, text: str, first: bool) -> Any:
        if first:  # a connection is an episode
            state["policy"] = WebsocketClientPolicy(host, int(port))
        reply = state["policy"].infer({"observation/image": image, "prompt": text})
        return reply["actions"][0]

    return act


def openvla(address: str) -> Callable[..., Any]:
    import json_numpy
    import requests

    json_numpy.patch()

    def act(image: np.ndarray, text: str, first: bool) -> Any:
        request = {"image": image, "instruction": text}
        return requests.post(f"http://{address}/act", json=request, timeout=60).json()

    return act


def vla_eval(address: str) -> Callable[..., Any]:
    from vla_eval.connection import Connection

    loop, connection = asyncio.new_event_loop(), Connection(f"ws://{address}/vla-eval")
    loop.run_until_complete(connection.connect(benchmark="none"))
    assert connection.server_info["protocol_version"] == 1

    async def step(image: np.ndarray, text: str, first: bool) -> Any:
        if first:
            await connection.start_episode({"task": {"name": text}})
        seen = {"images": {"agentview": image}, "task_description": text}
        return (await connection.act(seen))["actions"]

    return lambda *arguments: loop.run_until_complete(step(*arguments))


def gr00t(address: str) -> Callable[..., Any]:
    import msgpack
    import zmq

    socket = zmq.Context().socket(zmq.REQ)
    socket.setsockopt(zmq.RCVTIMEO, 60_000)
    socket.connect(f"tcp://{address}")

    def write(value: Any) -> Any:
        file = io.BytesIO()
        np.save(file, value, allow_pickle=False)
        return {"__ndarray_class__": True, "as_npy": file.getvalue()}

    def read(value: Any) -> Any:
        if "__ndarray_class__" in value:
            return np.load(io.BytesIO(value["as_npy"]), allow_pickle=False)
        return json.loads(value["as_json"]) if "__ModalityConfig_class__" in value else value

    def call(endpoint: str, **data: Any) -> Any:
        socket.send(msgpack.packb({"endpoint": endpoint, "data": data}, default=write))
        found = msgpack.unpackb(socket.recv(), object_hook=read)
        assert not isinstance(found, dict) or "error" not in found, found
        return found

    assert call("ping")["status"] == "ok"
    config = call("get_modality_config")
    (camera,), names = config["video"]["modality_keys"], config["action"]["modality_keys"]

    def act(image: np.ndarray, text: str, first: bool) -> Any:
        if first:
            call("reset", options=None)
        language = {config["language"]["modality_keys"][0]: [[text]]}
        seen = {"video": {camera: image[None, None]}, "state": {}, "language": language}
        action, _ = call("get_action", observation=seen, options=None)
        return np.concatenate([action[name][0, 0] for name in names])

    return act


CLIENTS = {"openpi": openpi, "openvla": openvla, "vla_eval": vla_eval, "gr00t": gr00t}


def main() -> None:
    act = CLIENTS[sys.argv[1]](sys.argv[2])
    while line := sys.stdin.buffer.readline():
        step = json.loads(line)
        image = np.frombuffer(sys.stdin.buffer.read(step["bytes"]), np.uint8)
        action = act(image.reshape(step["shape"]), step["instruction"], step["first"])
        print(json.dumps(np.asarray(action, float).tolist()), flush=True)


if __name__ == "__main__":
    main()
