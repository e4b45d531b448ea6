"""Requests that wait share a policy call, and nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
from fake_policies import SummingPolicy, observation
from policies import make_policy
from protocol_clients import IMAGE, service_of

from vla.errors import ActionError, ConfigError
from vla.inference.runner import PolicyRunner
from vla.serve import sessions
from vla.serve.batching import Batcher, Batching
from vla.serve.errors import Busy
from vla.serve.service import PolicyService
from vla.serve.sessions import Sessions


class GatedPolicy(SummingPolicy):
    """Waits for ``gate`` in every call; keeps the sizes of the calls and their instructions."""

    def __init__(self, **kind: Any) -> None:
        super().__init__(**kind)
        self.gate, self.entered = threading.Event(), threading.Event()
        self.calls: list[list[str]] = []

    def predict(
        self, images: Any, instructions: Sequence[str], *state: Any, **options: Any
    ) -> tuple[np.ndarray, list[str]]:
        self.calls.append(list(instructions))
        self.entered.set()
        assert self.gate.wait(10)
        if any(text.startswith("broken") for text in instructions):
            raise RuntimeError("a broken row")
        chunks, plans = super().predict(images, instructions, *state, **options)
        chunks[[text.startswith("nan") for text in instructions]] = np.nan
        return chunks, plans


@pytest.fixture
def policy() -> Iterator[GatedPolicy]:
    made = GatedPolicy()
    yield made
    made.gate.set()


def batcher_of(policy: GatedPolicy, **options: Any) -> Batcher:
    return Batcher(PolicyRunner(policy), Batching(**options))  # type: ignore[arg-type]


def submit(batcher: Batcher, policy: GatedPolicy, *requests: tuple[str | None, str]) -> list[Any]:
    """Futures of requests that all wait while the policy answers another one."""
    batcher.submit(None, observation(instruction="first"))
    assert policy.entered.wait(10)
    futures = [batcher.submit(key, observation(instruction=text)) for key, text in requests]
    policy.gate.set()
    return futures


def test_waiting_requests_share_a_call_in_the_order_in_which_they_came(policy: GatedPolicy) -> None:
    batcher = batcher_of(policy, max_batch=3)
    texts = ["a", "bb", "ccc", "dddd", "eeeee"]
    answers = [f.result(10) for f in submit(batcher, policy, *((t, t) for t in texts))]
    assert policy.calls == [["first"], texts[:3], texts[3:]]
    assert [a.actions[0, 2] for a in answers] == [1, 2, 3, 4, 5]
    assert [a.batch for a in answers] == [3, 3, 3, 2, 2]


def test_a_client_has_one_request_in_a_batch_and_others_pass_it(policy: GatedPolicy) -> None:
    policy.plans = True
    batcher = batcher_of(policy)
    futures = submit(batcher, policy, ("x", "a"), ("x", "a"), ("y", "b"), (None, "c"), (None, "c"))
    answers = [f.result(10) for f in futures]
    assert policy.calls[1:] == [["a", "b", "c", "c"], ["a"]]
    # the plan of a client counts its calls
    assert [a.actions[0, 4] for a in answers] == [0, 1, 0, 0, 0]


def test_an_error_is_only_that_of_the_request_that_causes_it(policy: GatedPolicy) -> None:
    batcher = batcher_of(policy)
    keys = ("good", "broken", "nan", "fine")
    good, broken, nan, fine = submit(batcher, policy, *((k, k) for k in keys))
    assert good.result(10).actions[0, 2] == 4 and fine.result(10).actions[0, 2] == 4
    with pytest.raises(RuntimeError, match="a broken row"):
        broken.result(10)
    with pytest.raises(ActionError, match=r"not finite \(a, b, c, d, e, f, g, h\)"):
        nan.result(10)


def test_a_reset_drops_the_state_and_the_waiting_requests(policy: GatedPolicy) -> None:
    policy.plans = True
    policy.gate.set()
    batcher = batcher_of(policy)

    def plan_count() -> float:
        return float(batcher.submit("x", observation()).result(10).actions[0, 4])

    assert [plan_count() for _ in range(3)] == [0, 1, 2]
    batcher.reset("x")
    assert plan_count() == 0
    policy.gate.clear()
    policy.entered.clear()
    (waiting,) = submit_waiting(batcher, policy, "x")
    batcher.reset("x")
    policy.gate.set()
    assert waiting.cancelled() and plan_count() == 0


def submit_waiting(batcher: Batcher, policy: GatedPolicy, *keys: str) -> list[Any]:
    batcher.submit(None, observation(instruction="first"))
    assert policy.entered.wait(10)
    return [batcher.submit(key, observation()) for key in keys]


def test_a_closed_batcher_refuses_requests_also_those_of_the_running_call(
    policy: GatedPolicy,
) -> None:
    batcher = batcher_of(policy)
    running = batcher.submit("x", observation())
    assert policy.entered.wait(10)
    waiting = batcher.submit("y", observation())
    start = time.monotonic()
    batcher.close()
    for future in (running, waiting):
        with pytest.raises(Busy):
            future.result(10)
    with pytest.raises(Busy):
        batcher.submit("z", observation())
    assert time.monotonic() - start < 1 and batcher.is_busy


def test_a_single_client_does_not_wait_for_others(policy: GatedPolicy) -> None:
    policy.gate.set()
    batcher = batcher_of(policy, window_ms=1000)
    start = time.monotonic()
    for _ in range(5):
        batcher.submit("x", observation()).result(10)
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("options", [{"window_ms": -1}, {"window_ms": 5000}, {"max_batch": 0}])
def test_options_are_checked(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Batching(**options)  # type: ignore[arg-type]


def test_answers_of_unlike_prompts_equal_those_of_single_requests() -> None:
    policy = make_policy({"name": "token", "plan": True, "plan_tokens": 4})
    service = PolicyService(policy.robot(), batching=Batching(window_ms=1000))
    random = np.random.default_rng(0)
    texts = ["pick up the red apple", "where", "pick the banana " * 4, "fruit kind", "what is it"]
    images = random.integers(0, 256, (len(texts), 32, 32, 3), np.uint8)
    fields = [{"top": image} for image in images]
    singles = [
        service.submit(given, text).result(60) for given, text in zip(fields, texts, strict=True)
    ]
    service.batcher._expected = len(texts)
    futures = [service.submit(given, text) for given, text in zip(fields, texts, strict=True)]
    together = [future.result(60) for future in futures]
    assert {a.batch for a in singles} == {1} and {a.batch for a in together} == {len(texts)}
    for one, other in zip(singles, together, strict=True):
        assert np.array_equal(one.actions, other.actions) and one.plan == other.plan


def test_the_state_of_idle_clients_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    service = service_of(SummingPolicy(plans=True))
    service.submit({"top": IMAGE}, "go", "x").result(10)
    assert service.runner.plan("x") == "1"
    service.sessions.timeout = 0.0
    service.sessions.drop_idle()
    service.submit({"top": IMAGE}, "go").result(10)  # after the reset
    assert service.runner.plan("x") == "" and len(service.sessions) == 0
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 1)
    dropped: list[Any] = []
    few = Sessions(dropped.append, 60)
    few.use("x")
    few.use("x")
    with pytest.raises(Busy):
        few.use("y")
    few.end("x")
    few.use("y")
    assert dropped == ["x"]
