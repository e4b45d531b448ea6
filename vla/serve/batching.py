"""Continuous batching: the requests that wait become one policy call."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from vla.errors import ConfigError
from vla.inference.inputs import Observation
from vla.inference.runner import PolicyRunner
from vla.policies.units import check_actions
from vla.serve.errors import Busy

_CLOSED = "the server ends"


@dataclass(frozen=True)
class Batching:
    """Options of continuous batching."""

    # ms that a policy call waits at most for further requests; it waits only if fewer requests are
    # there than the last call had, and those that came during it
    window_ms: float = 5.0
    # requests of one policy call at most; 1: one at a time
    max_batch: int = 32

    def __post_init__(self) -> None:
        if not 0 <= self.window_ms <= 1000:
            raise ConfigError(f"--batch-window-ms {self.window_ms}: expected 0 to 1000")
        if not 1 <= self.max_batch <= 1024:
            raise ConfigError(f"--max-batch {self.max_batch}: expected 1 to 1024")


@dataclass(frozen=True)
class Answer:
    """The reply to one request."""

    actions: np.ndarray  # (N, A) float32 in robot units: the actions to execute
    plan: str  # text before the action; empty: none
    infer_ms: float  # duration of the policy call
    queue_ms: float  # time in the queue before it
    batch: int  # requests of the policy call


@dataclass
class _Waiting:
    """A request in the queue."""

    client: Hashable | None
    observation: Observation
    one_step: bool = False
    future: Future[Answer] = field(default_factory=Future)
    since: float = field(default_factory=time.perf_counter)


class Batcher:
    """A queue of requests, and one thread that answers as many of them as it can at once.

    Requests are answered in the order in which they come. A batch has at most one request of a
    client, because its history and plan depend on its previous request. An exception in a batch
    is an exception of the requests that cause it: the others are answered.

    Args:
        runner: keeps the state of the clients.
        options: window and size of batches.
    """

    def __init__(self, runner: PolicyRunner, options: Batching | None = None) -> None:
        self.runner, self.options = runner, options or Batching()
        self._waiting: deque[_Waiting] = deque()
        self._running: list[_Waiting] = []
        self.is_closed = False
        self._resets: set[Hashable] = set()
        self._expected = 1  # requests for which a batch waits
        self._changed = threading.Condition()
        # Its thread ends when the batcher is deleted.
        self._thread = ThreadPoolExecutor(1, "policy")

    def submit(
        self, client: Hashable | None, observation: Observation, one_step: bool = False
    ) -> Future[Answer]:
        """The future answer to a checked observation.

        Args:
            client: whose history, plan and predictions are used; None: an independent request.
            one_step: the answer has one action, from the client's queue if it has any.

        Raises:
            Busy: the batcher is closed.
        """
        request = _Waiting(client, observation, one_step)
        with self._changed:
            if self.is_closed:
                raise Busy(_CLOSED)
            self._waiting.append(request)
            self._changed.notify()
            self._thread.submit(self._turn)
        return request.future

    def reset(self, client: Hashable) -> None:
        """Drop the client's state and its waiting requests. Returns without waiting."""
        with self._changed:
            for request in [r for r in self._waiting if r.client == client]:
                self._waiting.remove(request)
                request.future.cancel()
            if not self.is_closed:
                self._resets.add(client)
                self._thread.submit(self._turn)

    def close(self) -> None:
        """Refuse all requests, also those of the policy call that runs; it ends by itself."""
        with self._changed:
            self.is_closed = True
            for request in [*self._waiting, *self._running]:
                if not request.future.done():
                    request.future.set_exception(Busy(_CLOSED))
            self._waiting.clear()
            self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def is_busy(self) -> bool:
        """True while a policy call runs."""
        return bool(self._running)

    def _turn(self) -> None:
        """One policy call; nothing if an earlier turn answered the request of this one."""
        batch = self._next_batch()
        if batch:
            self._answer(batch)
            with self._changed:
                self._running = []
                self._expected = len(batch) + len(self._waiting)

    def _next_batch(self) -> list[_Waiting]:
        """The first waiting requests of one kind, at most one of each client."""
        options = self.options
        with self._changed:
            resets, self._resets = self._resets, set()
        for client in resets:
            self.runner.reset(client)
        with self._changed:
            if not self._waiting:
                return []
            enough = min(self._expected, options.max_batch)
            self._changed.wait_for(
                lambda: len(self._waiting) >= enough or self._resets, options.window_ms / 1000
            )
            batch: list[_Waiting] = []
            clients: set[Hashable] = set(self._resets)  # their state is dropped first
            for request in list(self._waiting):
                if len(batch) == options.max_batch:
                    break
                if batch and request.one_step != batch[0].one_step:
                    continue
                if request.client is None or request.client not in clients:
                    clients.add(request.client)
                    self._waiting.remove(request)
                    batch.append(request)
            self._running = [r for r in batch if r.future.set_running_or_notify_cancel()]
            return self._running

    def _answer(self, batch: list[_Waiting]) -> None:
        """Call the policy and set the answers."""
        start = time.perf_counter()
        try:
            clients, seen = [r.client for r in batch], [r.observation for r in batch]
            if batch[0].one_step:
                chunks = self.runner.act(clients, seen)[:, None]
                plans = [self.runner.plan(client) for client in clients]
            else:
                chunks, plans = self.runner.predict(clients, seen)
        except BaseException as error:
            if len(batch) == 1 or not isinstance(error, Exception):
                for request in batch:
                    self._finish(request, error)
                return
            for request in batch:  # the state has not changed
                self._answer([request])
            return
        infer_ms = 1000 * (time.perf_counter() - start)
        for request, chunk, plan in zip(batch, chunks, plans, strict=True):
            try:
                actions = chunk
                if not request.one_step:
                    actions = self.runner.actions_to_execute(request.client, chunk)
                if len(actions):  # none are left of a chunk that came too late
                    check_actions(self.runner.spec, actions[None])
            except Exception as error:
                self._finish(request, error)
                continue
            queue_ms = 1000 * (start - request.since)
            self._finish(request, Answer(actions, plan, infer_ms, queue_ms, len(batch)))

    def _finish(self, request: _Waiting, result: Answer | BaseException) -> None:
        with self._changed:
            if request.future.done():  # closed meanwhile
                return
            if isinstance(result, Answer):
                request.future.set_result(result)
            else:
                request.future.set_exception(result)
