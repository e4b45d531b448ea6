"""A robot that does not wait for its policy: delayed actions, simulated or measured."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla.errors import ConfigError
from vla.inference.inputs import Observation, blank_observation
from vla.inference.runner import PolicyRunner
from vla.policies.execution import Execution
from vla.policies.spec import RobotSpec
from vla.types import Leftover

_RECENT = 10  # the measured delay is the largest of this many calls
Prediction = tuple[np.ndarray, list[str]]  # of ``PolicyRunner.predict``


@dataclass(frozen=True)
class Latency:
    """The time from an observation to the actions that the policy predicts from it."""

    ms: float = 0.0  # simulated; with ``live`` it is added to the time of the policy call
    live: bool = False  # control steps follow the clock, and policy calls take the time they take

    def __post_init__(self) -> None:
        if not 0 <= self.ms <= 60_000:
            raise ConfigError(f"--latency-ms: expected 0 to 60000, got {self.ms:g}")

    def steps(self, rate_hz: float) -> int:
        """The simulated time in control steps, rounded up: actions begin at a control step."""
        return math.ceil(self.ms * rate_hz / 1000 - 1e-9)

    def check(self, execution: Execution, spec: RobotSpec) -> None:
        """Check that the robot has actions during a simulated delay.

        Raises:
            ConfigError: it has none: the mode is not synchronous, and the delay is longer than
                the execution horizon, or than what a chunk has left.
        """
        steps, largest = (
            self.steps(spec.action_space.rate_hz),
            execution.largest_delay(spec.horizon),
        )
        if execution.overlaps and not self.live and execution.delay is None and steps > largest:
            executed = execution.steps_per_call(spec.horizon)
            raise ConfigError(
                f"--latency-ms: {self.ms:g} ms are {steps} control steps at "
                f"{spec.action_space.rate_hz:g} Hz; {execution.mode} with {executed} of "
                f"{spec.horizon} steps of a chunk executed covers {largest}; change "
                "--execution-horizon, or train with a larger data.window.horizon"
            )


class _Call:
    """A policy call for some keys; its result is not there yet."""

    def __init__(self, keys: Sequence[Hashable], future: Future[Prediction], steps: int) -> None:
        self.keys, self.future, self.steps_left = list(keys), future, steps
        self.age = 0  # control steps since the observation
        self.start = time.perf_counter()
        self.executed = dict.fromkeys(keys, 0)  # actions executed since the observation

    @property
    def is_there(self) -> bool:
        """True if the actions can be executed from this control step on."""
        return self.steps_left <= 0 and self.future.done()


class RealTimeRunner:
    """Acts at every control step, also while the policy predicts.

    While a prediction is pending the robot executes what is left of the old chunk (modes
    asynchronous and delay_aware); without any action it holds still. One call is pending for a
    key. A prediction starts when ``execution.delay`` actions are left. If that is None, it is the
    simulated latency, or the largest of the last 10 measured delays.

    Args:
        runner: the policy.
        latency: simulated, or measured with the clock. A live runner waits in ``act`` for the
            next control step.
        hold: gives the action (A,) that keeps the robot still after its last action (None: it
            has not acted yet), for example ``Benchmark.hold_action``.

    Raises:
        ConfigError: see ``Latency.check``.
    """

    def __init__(
        self,
        runner: PolicyRunner,
        latency: Latency,
        hold: Callable[[np.ndarray | None], np.ndarray],
    ) -> None:
        latency.check(runner.execution, runner.spec)
        self.runner, self.queue, self.latency, self.hold = runner, runner.queue, latency, hold
        self._rate = runner.spec.action_space.rate_hz
        self._steps = 0 if latency.live else latency.steps(self._rate)
        self._largest = runner.execution.largest_delay(runner.spec.horizon)
        self._recent: deque[int] = deque(maxlen=_RECENT)
        self._calls: list[_Call] = []
        self._last: dict[Hashable, np.ndarray] = {}
        self._plans: dict[Hashable, str] = {}
        self._thread = ThreadPoolExecutor(1, "policy") if latency.live else None
        self._next_step = 0.0  # of the clock, s
        if latency.live:
            runner.predict([None], [blank_observation(runner.spec)])  # the first call is slow
        self.delays: list[tuple[float, int]] = []  # (ms, control steps) of every call
        self.held = self.acted = 0  # control steps without and with an action of the policy

    def reset(self, key: Hashable) -> None:
        """Start a new episode; a pending prediction for it is dropped."""
        for call in self._calls:
            if key in call.keys:
                call.keys.remove(key)
                if self.latency.live:
                    call.future.exception()  # wait: it uses the history of the key
        self._calls = [call for call in self._calls if call.keys]
        self.runner.reset(key)
        self._last.pop(key, None)
        self._plans.pop(key, None)

    def looks(self, key: Hashable) -> bool:
        """True: a prediction may start at every control step."""
        return True

    def plan(self, key: Hashable) -> str:
        """The plan of the chunk that is executed; empty: the policy acted without a plan."""
        return self._plans.get(key, "")

    def act(self, keys: Sequence[Hashable], observations: Sequence[Observation]) -> np.ndarray:
        """Actions (B, A) of this control step in robot units. It does not wait for the policy.

        Raises:
            ValueError: see ``PolicyRunner.act``.
        """
        self._wait_for_step()
        self.runner.observe(keys, observations)
        for call in self._calls:
            call.age += 1
            call.steps_left -= 1
        self._receive()
        pending = {key for call in self._calls for key in call.keys}
        starting = [
            k for k in keys if k not in pending and self.queue.needs_chunk(k, self._delay())
        ]
        if starting:
            self._start(starting)
        return np.stack([self._action(key) for key in keys])

    def summary(self) -> dict[str, Any]:
        """The latency for the results: settings, measured delays and held control steps."""
        ms, steps = zip(*self.delays, strict=True) if self.delays else ((0.0,), (0,))
        return {
            "ms": self.latency.ms,
            "live": self.latency.live,
            "steps": self._steps if not self.latency.live else None,
            "calls": len(self.delays),
            "median_ms": float(np.median(ms)) if self.latency.live else None,
            "largest_steps": max(steps),
            "held_steps": self.held,
            "acted_steps": self.acted,
        }

    def describe(self) -> str:
        """The summary in one line."""
        found, rate = self.summary(), self._rate
        asked = f"{found['ms']:g} ms, simulated"
        if self.latency.live:
            asked = f"{found['median_ms']:.0f} ms, median of {found['calls']} calls"
        share = self.held / max(1, self.held + self.acted)
        return (
            f"latency {asked}; at most {found['largest_steps']} control steps at "
            f"{rate:g} Hz; the robot had no action at {100 * share:.0f} % of the control steps"
        )

    def _delay(self) -> int:
        """Actions that are left when a prediction starts."""
        given = self.runner.execution.delay
        measured = max(self._recent, default=0) if self.latency.live else self._steps
        return min(self._largest, measured if given is None else given)

    def _start(self, keys: list[Hashable]) -> None:
        """Predict for these keys from their last observations."""
        leftovers = [self.queue.leftover(key, self._delay()) for key in keys]
        if self._thread is not None:
            future = self._thread.submit(self._slow_prediction, keys, leftovers)
        else:
            future = Future()
            future.set_result(self.runner.predict_observed(keys, leftovers))
        self._calls.append(_Call(keys, future, self._steps))
        if self._thread is None:
            self._receive()  # without latency the actions are there at once

    def _slow_prediction(
        self, keys: list[Hashable], leftovers: list[Leftover | None]
    ) -> Prediction:
        made = self.runner.predict_observed(keys, leftovers)
        time.sleep(self.latency.ms / 1000)
        return made

    def _receive(self) -> None:
        """Queue the chunks that are there by now."""
        for call in [c for c in self._calls if c.is_there]:
            self._calls.remove(call)
            self._recent.append(call.age)
            self.delays.append((1000 * (time.perf_counter() - call.start), call.age))
            chunks, plans = call.future.result()
            for key, chunk, plan in zip(call.executed, chunks, plans, strict=True):
                if key in call.keys:  # its episode has not ended
                    self.queue.push(key, chunk, call.executed[key])
                    self._plans[key] = plan

    def _action(self, key: Hashable) -> np.ndarray:
        """The action of this control step."""
        pending = next((call for call in self._calls if key in call.keys), None)
        waits = pending is not None and not self.queue.left(key)
        if waits:
            self.held += 1
            action = self.hold(self._last.get(key))
        else:
            self.acted += 1
            action = self.queue.pop(key)
            if pending is not None:
                pending.executed[key] += 1
        self._last[key] = action
        return action

    def _wait_for_step(self) -> None:
        """With the clock: sleep until the next control step; late steps are not made up for."""
        if self.latency.live:
            now = time.perf_counter()
            time.sleep(max(0.0, self._next_step - now))
            self._next_step = max(now, self._next_step) + 1 / self._rate
