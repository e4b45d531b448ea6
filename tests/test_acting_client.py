"""A client that acts during its requests, against the server's code without a network."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
from protocol_clients import service_of
from test_serve_execution import Clock

from vla.policies.execution import Execution
from vla.serve.client import ActingClient


class Delayed:
    """A connection whose replies come when the test says so."""

    def __init__(self, execution: Execution) -> None:
        self.service = service_of(Clock(), None, ("state",), execution)
        self.about, self.may_answer = self.service.about(), threading.Semaphore(0)

    def infer(self, request: Any) -> Any:
        self.may_answer.acquire()
        answer = self.service.submit(dict(request), request["prompt"], "robot").result(10)
        return {"actions": answer.actions}

    def reset(self) -> None:
        self.service.reset("robot")


def executed(execution: Execution, delay: int, steps: int) -> list[Any]:
    """(brightness of the observation, step of its chunk) of every control step; None: none."""
    client: Any = Delayed(execution)
    robot = ActingClient(client)
    found: list[Any] = []
    for t in range(steps):
        pending = robot._request
        if pending is not None and robot._age + 1 == delay:
            client.may_answer.release()
            while not pending.done():
                time.sleep(0.001)
        image = np.full((8, 8, 3), t, np.uint8)
        action = robot.step({"observation/image": image, "prompt": "go"})
        found.append(None if action is None else tuple(action[:2].tolist()))
    client.may_answer.release(2)
    robot.reset()
    client.service.close()
    return found


def test_a_delay_aware_server_continues_the_actions_that_the_client_executes() -> None:
    rows = executed(Execution(3, mode="delay_aware"), delay=2, steps=12)
    assert rows[:5] == [None, None, (0, 0), (0, 1), (0, 2)]  # the delay is not known yet
    # asked at steps 3, 6, 9 with two actions left: the first two of the chunk are past
    assert rows[5:] == [(t, h) for t in (3, 6, 9) for h in (2, 3, 4)][:7]


def test_a_synchronous_server_answers_a_robot_that_waits() -> None:
    rows = executed(Execution(2), delay=1, steps=6)
    assert rows == [None, (0, 0), (0, 1), None, (3, 0), (3, 1)]


def test_an_asynchronous_server_begins_every_chunk_with_its_first_action() -> None:
    rows = executed(Execution(3, mode="asynchronous"), delay=2, steps=11)
    assert rows[2:] == [(0, 0), (0, 1), (0, 2), (3, 0), (3, 1), (3, 2), (6, 0), (6, 1), (6, 2)]
