"""A server with an execution horizon, or with temporal ensembling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
from fake_policies import SummingPolicy
from protocol_clients import IMAGE, array, ask, encoded, service_of, wire
from starlette.testclient import TestClient

from vla.policies.execution import Execution
from vla.serve.server import all_protocols, make_app
from vla.serve.service import RequestError

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
            assert http.post("/act?chunk=true", json=request).json()["shape"] == [3, 8]


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


class Clock(SummingPolicy):
    """Dimension 0 is the brightness, 1 the step of the chunk."""

    def __init__(self) -> None:
        super().__init__(horizon=8)
        self.leftovers: list[Any] = []

    def uses_known_actions(self) -> bool:
        return True

    def predict(self, *args: Any, leftovers: Any = (None,), **options: Any) -> Any:
        self.leftovers += leftovers
        chunks, plans = super().predict(*args, **options)
        chunks[..., 1] = np.arange(self.spec.horizon)
        return chunks, plans


def ask_clock(socket: Any, brightness: int, **request: Any) -> list[list[float]]:
    image = wire(np.full_like(IMAGE, brightness))
    reply = ask(socket, **{"observation/image": image, "prompt": "go"}, **request)
    found: list[list[float]] = array(reply["actions"])[:, :2].tolist()
    return found


def clock_of(execution: Execution) -> tuple[Clock, TestClient]:
    policy = Clock()
    return policy, TestClient(
        make_app(service_of(policy, None, ("state",), execution), all_protocols())
    )


def test_a_delay_aware_reply_follows_the_actions_that_a_client_has_left() -> None:
    policy, http = clock_of(Execution(3, mode="delay_aware", delay=2))
    with http, http.websocket_connect("/") as socket, http.websocket_connect("/") as other:
        about = http.get("/about").json()
        assert (about["execution_mode"], about["delay_steps"]) == ("delay_aware", 2)
        assert about["conditions_on_left_actions"] is True
        socket.receive_bytes(), other.receive_bytes()
        # nothing is executed during the first call of a connection
        assert ask_clock(socket, 1) == [[1, 0], [1, 1], [1, 2]]
        assert ask_clock(socket, 2) == [[2, 2], [2, 3], [2, 4]]
        assert policy.leftovers[-1].frozen == 2
        first = policy.leftovers[-1].actions_HA[:, :2].tolist()
        assert first == [[1, 1], [1, 2], [1, 3], [1, 4], [1, 5], [1, 6], [1, 7]]
        assert ask_clock(other, 9) == [[9, 0], [9, 1], [9, 2]]  # its own schedule
        # the request says what is left
        assert ask_clock(socket, 3, left=1) == [[3, 1], [3, 2], [3, 3]]
        assert policy.leftovers[-1].actions_HA[:, :2].tolist()[0] == [2, 4]
        assert ask_clock(socket, 4, left=0) == [[4, 0], [4, 1], [4, 2]]
        assert policy.leftovers[-1] is None


def test_asynchronous_replies_are_chunks_from_their_first_action() -> None:
    policy, http = clock_of(Execution(3, mode="asynchronous", delay=2))
    with http, http.websocket_connect("/") as socket:
        socket.receive_bytes()
        for brightness in (1, 2):
            assert ask_clock(socket, brightness) == [[brightness, h] for h in range(3)]
    assert policy.leftovers == [None, None]


@pytest.mark.parametrize("left", [-1, 4, 1.5, "2", True, 10**30])
def test_an_invalid_number_of_actions_left_is_refused(left: Any) -> None:
    service = service_of(Clock(), None, ("state",), Execution(3, mode="delay_aware", delay=2))
    fields = {"observation/image": IMAGE, "left": left}
    with pytest.raises(RequestError, match="left: expected a whole number from 0 to 3, got"):
        service.observation(fields, "go", "client")


def test_independent_requests_cannot_continue_actions() -> None:
    _, http = clock_of(Execution(3, mode="delay_aware", delay=2))
    with http:
        reply = http.post("/act", json={"image": encoded(IMAGE), "instruction": "go"})
        assert reply.status_code == 400
        assert "delay_aware); use the websocket API" in reply.json()["error"]
