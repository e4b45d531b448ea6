"""Which action a robot executes at every step while its policy takes time to predict."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_policies import RecordingPolicy, observation
from hypothesis import assume, given
from hypothesis import strategies as st

from vla.errors import ConfigError
from vla.evaluation.rollout import evaluate, open_benchmark
from vla.inference.realtime import Latency, RealTimeRunner
from vla.inference.runner import PolicyRunner
from vla.policies.execution import Execution
from vla.types import ActionSpace, Leftover

SPACE = ActionSpace(("seen", "step"), ("", ""), (-1e9,) * 2, (1e9,) * 2, rate_hz=10.0)
HELD = -1.0  # both numbers of the action of a robot that holds still


class ClockPolicy(RecordingPolicy):
    """Step h of the chunk is (t, h), where t is the grey value of the observation's image."""

    def __init__(self, horizon: int, seconds: float = 0.0, **spec: Any) -> None:
        super().__init__(SPACE, horizon=horizon, **spec)
        self.seconds = seconds
        self.leftovers: list[Sequence[Leftover | None]] = []

    def uses_known_actions(self) -> bool:
        return True

    def predict(self, images: torch.Tensor, texts: Sequence[str], **options: Any) -> Any:
        self.leftovers.append(options.get("leftovers", [None] * len(texts)))
        time.sleep(self.seconds)
        chunks = np.zeros((len(images), self.spec.horizon, 2), np.float32)
        chunks[..., 0] = images[:, 0, -1, 0, 0, 0, None].numpy()
        chunks[..., 1] = np.arange(self.spec.horizon)
        return chunks, [""] * len(texts)


def hold(last: np.ndarray | None) -> np.ndarray:
    return np.full(2, HELD, np.float32)


def robot(policy: Any, execution: Execution, latency: Latency) -> RealTimeRunner:
    return RealTimeRunner(PolicyRunner(policy, execution), latency, hold)


def executed(actor: RealTimeRunner, steps: int) -> list[tuple[float, float]]:
    """(time of the observation, step of its chunk) of the action of every control step."""
    rows = [actor.act(["a"], [observation(t)])[0] for t in range(steps)]
    return [(float(seen), float(step)) for seen, step in rows]


def expected(mode: str, horizon: int, delay: int, steps: int) -> list[tuple[float, float]]:
    """The schedule, from the definitions of the modes."""
    held = [(HELD, HELD)] * delay
    if mode == "synchronous":
        period, found = delay + horizon, []
        while len(found) < steps:
            start = len(found)
            assert start % period == 0
            found += held + [(float(start), float(h)) for h in range(horizon)]
        return found[:steps]
    first = delay if mode == "delay_aware" else 0
    found = held + [(0.0, float(h)) for h in range(horizon)]
    while len(found) < steps:
        start = len(found) - delay  # the observation with ``delay`` actions left
        found += [(float(start), float(first + h)) for h in range(horizon)]
    return found[:steps]


@given(
    mode=st.sampled_from(["synchronous", "asynchronous", "delay_aware"]),
    horizon=st.integers(1, 5),
    delay=st.integers(0, 5),
    spare=st.integers(0, 3),
    told=st.booleans(),
)
def test_every_mode_and_delay_has_its_schedule(
    mode: Any, horizon: int, delay: int, spare: int, told: bool
) -> None:
    overlaps = mode != "synchronous"
    chunk = horizon + (delay if mode == "delay_aware" else 0) + spare
    assume(not overlaps or delay <= horizon)
    execution = Execution(horizon, mode=mode, delay=delay if overlaps else None)
    if not told:
        assume(not overlaps or execution.largest_delay(chunk) > 0)
        execution = Execution(horizon, mode=mode)
    actor = robot(ClockPolicy(chunk), execution, Latency(100.0 * delay))
    assert executed(actor, 20) == expected(mode, horizon, delay, 20)


def test_the_frozen_actions_are_those_executed_during_the_call() -> None:
    policy = ClockPolicy(8)
    actor = robot(policy, Execution(3, mode="delay_aware"), Latency(200))
    rows = executed(actor, 12)
    assert policy.leftovers[0] == [None]
    for start, (leftover,) in zip((3, 6, 9), policy.leftovers[1:], strict=False):
        assert leftover is not None and leftover.frozen == 2
        assert leftover.actions_HA[:2].tolist() == [[*rows[start]], [*rows[start + 1]]]
        # then the predictions that were not executed: all later steps of the same chunk
        seen, step = rows[start]
        after = [[seen, step + k] for k in range(int(8 - step))]
        assert leftover.actions_HA.tolist() == after
    plain = ClockPolicy(8)
    executed(robot(plain, Execution(3, mode="delay_aware", condition=False), Latency(200)), 12)
    assert all(rows == [None] for rows in plain.leftovers)


def test_a_delay_that_is_longer_than_said_holds_the_robot_and_skips_nothing() -> None:
    actor = robot(ClockPolicy(8), Execution(3, mode="delay_aware", delay=1), Latency(300))
    held = (HELD, HELD)
    assert executed(actor, 10) == [
        *[held] * 3,
        *[(0.0, 0.0), (0.0, 1.0), (0.0, 2.0)],
        *[held] * 2,  # the call at step 5 has one action left and takes three steps
        *[(5.0, 1.0), (5.0, 2.0)],
    ]
    assert (actor.held, actor.acted) == (5, 5)


def test_ensembling_waits_at_every_step() -> None:
    actor = robot(ClockPolicy(2), Execution(temporal_ensemble=-1000.0), Latency(100))
    held = (HELD, HELD)
    assert executed(actor, 5) == [held, (0.0, 0.0), held, (2.0, 0.0), held]


def test_parallel_episodes_keep_their_own_schedule_and_a_reset_drops_pending_calls() -> None:
    actor = robot(ClockPolicy(4), Execution(2, mode="delay_aware"), Latency(200))
    found: dict[str, list[Any]] = {"a": [], "b": []}
    for t in range(12):
        keys = [k for k, start in (("a", 0), ("b", 1)) if t >= start]
        for key, row in zip(keys, actor.act(keys, [observation(t)] * len(keys)), strict=True):
            found[key].append(tuple(row.tolist()))
        if t == 5:
            actor.reset("a")
    assert found["b"] == [
        (seen + 1 if seen != HELD else HELD, step)
        for seen, step in expected("delay_aware", 2, 2, 11)
    ]
    assert found["a"][6:] == [
        (seen + 6 if seen != HELD else HELD, step)
        for seen, step in expected("delay_aware", 2, 2, 6)
    ]


def test_history_grows_during_a_call() -> None:
    policy = RecordingPolicy(SPACE, horizon=2, history=2)
    executed(robot(policy, Execution(2), Latency(100)), 4)
    assert [call.images[0, 0, :, 0, 0, 0].tolist() for call in policy.calls] == [[0, 0], [2, 3]]


def test_a_live_robot_acts_at_its_rate_and_measures_the_delay() -> None:
    policy = ClockPolicy(8, seconds=0.03)
    policy.spec.action_space = ActionSpace(*vars_of(SPACE), rate_hz=100.0)
    actor = robot(policy, Execution(4, mode="delay_aware"), Latency(live=True))
    start = time.perf_counter()
    rows = executed(actor, 40)
    assert time.perf_counter() - start >= 0.39
    summary = actor.summary()
    assert summary["median_ms"] >= 30 and summary["largest_steps"] >= 1
    assert summary["held_steps"] + summary["acted_steps"] == 40 and summary["acted_steps"] > 0
    # no action is executed twice, and chunk steps that are past are dropped
    acted = [row for row in rows if row[0] != HELD]
    assert len(set(acted)) == len(acted)
    assert max(step for _, step in acted) < 8


def vars_of(space: ActionSpace) -> tuple[Any, ...]:
    return space.names, space.units, space.low, space.high


@pytest.mark.parametrize(
    ("execution", "ms", "message"),
    [
        (Execution(6, mode="delay_aware"), 300, "--latency-ms: 300 ms are 3 control steps at 10 H"),
        (Execution(2, mode="asynchronous"), 300, "asynchronous with 2 of 8 steps .*covers 2"),
        (Execution(), -1, "--latency-ms: expected 0 to 60000"),
    ],
)
def test_chunks_too_short_for_the_latency_are_refused(
    execution: Execution, ms: float, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        robot(ClockPolicy(8), execution, Latency(ms))


@pytest.mark.parametrize(
    ("chunk", "options", "message"),
    [
        (
            8,
            {"horizon": 6, "mode": "delay_aware", "delay": 3},
            r"execution\.delay: expected 0 to 2",
        ),
        (8, {"horizon": 2, "mode": "asynchronous", "delay": 3}, r"execution\.delay: expected 0 to"),
        (8, {"delay": 1}, r"execution\.delay: it needs the mode"),
        (1, {"mode": "delay_aware"}, r"execution\.mode: delay_aware executes old actions"),
        (8, {"horizon": 8, "mode": "delay_aware"}, r"execution\.mode: .*shorter execution horizon"),
        (
            8,
            {"mode": "asynchronous", "temporal_ensemble": 0.1},
            r"execution\.temporal_ensemble: the mode asynchronous joins chunks",
        ),
    ],
)
def test_an_execution_that_does_not_fit_is_one_clear_error(
    chunk: int, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Execution(**options).check(chunk)


def test_evaluation_records_the_latency_and_the_tabletop_holds_its_gripper(tmp_path: Path) -> None:
    benchmark = open_benchmark({"name": "tabletop", "size": 32, "max_steps": 8})
    policy = RecordingPolicy(benchmark.action_space, image_size=(32, 32), horizon=4)
    how = Execution(2, mode="asynchronous")
    path, tasks = tmp_path / "results.json", benchmark.select(["pick"])
    evaluate(
        policy, benchmark, tasks, 2, path, 2, progress=False, execution=how, latency=Latency(400)
    )
    found = json.loads(path.read_text())
    assert found["execution"]["mode"] == "asynchronous"
    latency = {"ms": 400, "live": False, "steps": 2, "largest_steps": 2, "held_steps": 4}
    assert found["latency"].items() >= latency.items()
    last = policy.spec.action_space.high
    assert benchmark.hold_action(np.array(last)).tolist() == [0.0] * 7 + [1.0]
    assert benchmark.hold_action(None).tolist() == [0.0] * 8
    evaluate(policy, benchmark, tasks, 1, path, progress=False)
    assert json.loads(path.read_text())["latency"] is None
