"""A server with an execution horizon, or with temporal ensembling."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("starlette")
from fake_policies import SummingPolicy
from protocol_clients import IMAGE, array, ask, encoded, service_of, wire
from starlette.testclient import TestClient

from vla.policies.execution import Execution
from vla.serve.server import all_protocols, make_app

# Starlette's test client emits deprecation warnings
pytestmark = pytest.mark.filterwarnings("default")


def client_of(execution: Execution | None, saved: Execution | None = None) -> TestClient:
    policy = SummingPolicy(horizon=4)
    policy.spec.execution = saved or Execution()
    return TestClient(make_app(service_of(policy, None, ("state",), execution), all_protocols()))


def test_a_reply_has_the_actions_of_the_execution_horizon() -> None:
    request = {"image": encoded(IMAGE), "instruction": "go"}
    for http in (client_of(Execution(horizon=3)), client_of(None, Execution(horizon=3))):
        with http, http.websocket_connect("/") as socket:
            about = http.get("/about").json()
            assert (about["horizon"], about["execution_horizon"]) == (4, 3)
            assert about["temporal_ensemble"] is None
            socket.receive_bytes()
            reply = ask(socket, **{"observation/image": wire(IMAGE), "prompt": "go"})
            assert array(reply["actions"]).shape == (3, 8)
            assert http.post("/act", json=request).json()["shape"] == [3, 8]


def test_ensembling_averages_the_requests_of_a_connection() -> None:
    http = client_of(Execution(temporal_ensemble=1.0))
    with http:
        assert http.get("/about").json()["execution_horizon"] == 1
        brightness = []
        for values in ((100, 40, 10), (50,)):  # a new connection begins a new episode
            with http.websocket_connect("/") as socket:
                socket.receive_bytes()
                for value in values:
                    image = wire(np.full_like(IMAGE, value))
                    reply = ask(socket, **{"observation/image": image, "prompt": "go"})
                    actions = array(reply["actions"])
                    assert actions.shape == (1, 8)
                    brightness.append(actions[0, 0])
    weights = np.exp(-np.arange(3.0))
    expected = [np.dot(weights[:n], [100, 40, 10][:n]) / weights[:n].sum() for n in (1, 2, 3)]
    assert brightness == pytest.approx([*expected, 50])


def test_independent_requests_cannot_be_ensembled() -> None:
    with client_of(Execution(temporal_ensemble=0.01)) as http:
        reply = http.post("/act", json={"image": encoded(IMAGE), "instruction": "go"})
        assert reply.status_code == 400
        assert "temporal ensembling); use the websocket API" in reply.json()["error"]
