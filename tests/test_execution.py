"""Execution horizon and temporal ensembling: options, saved defaults, parallel episodes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import here, line  # fixtures
from fake_policies import ACTIONS, RecordingPolicy, observation
from policies import make_policy

from vla.config import check
from vla.errors import ConfigError
from vla.evaluation.rollout import evaluate, open_benchmark
from vla.inference.runner import PolicyRunner
from vla.policies.checkpoint import load_policy, save_policy
from vla.policies.execution import Execution, chosen_execution
from vla.policies.spec import RobotSpec
from vla.training.config import RunConfig
from vla.training.specs import make_robot_specs
from vla.types import ActionSpace

__all__ = ["here", "line"]


class GrowingPolicy(RecordingPolicy):
    """Step h of a chunk is 0.01 v (1 + h) in every dimension, v the grey value of the image."""

    def predict(self, images: torch.Tensor, instructions: Sequence[str], **_: Any) -> Any:
        grey = images[:, 0, -1, 0, 0, 0].numpy()[:, None, None]
        steps = 1 + np.arange(self.spec.horizon)[None, :, None]
        chunks = np.broadcast_to(0.01 * grey * steps, (len(images), self.spec.horizon, 3))
        return chunks.astype(np.float32), [""] * len(images)


@pytest.mark.parametrize(
    ("chunk", "options", "message"),
    [
        (8, {"horizon": 9}, "--execution-horizon: expected 1 to 8, the length of the policy's ac"),
        (8, {"horizon": 0}, "--execution-horizon: expected 1 to 8.*got 0"),
        (1, {"temporal_ensemble": 0.01}, "--temporal-ensemble: the policy predicts one action per"),
        (8, {"temporal_ensemble": float("nan")}, "--temporal-ensemble: expected a finite number"),
        (
            8,
            {"horizon": 4, "temporal_ensemble": 0.01},
            "--temporal-ensemble: it needs a new chunk at every step, but the execution horizon is",
        ),
    ],
)
def test_options_that_do_not_fit_are_one_clear_error(
    chunk: int, options: dict[str, Any], message: str
) -> None:
    spec = RobotSpec(ACTIONS, ("top",), (8, 8), horizon=chunk)
    given = {"horizon": None, "temporal_ensemble": None} | options
    with pytest.raises(ConfigError, match=message):
        chosen_execution(spec, **given)
    with pytest.raises(ConfigError, match=rf"^execution\.{list(options)[-1]}: "):
        PolicyRunner(RecordingPolicy(horizon=chunk), Execution(**given))  # type: ignore[arg-type]


def test_evaluation_and_server_refuse_options_in_one_line(line: Callable[..., str]) -> None:
    saved = "experiments/tabletop_seen/policy"
    horizon = line("eval", saved, "--execution-horizon", "2")
    assert horizon.startswith("error: --execution-horizon: expected 1, the length of the policy's")
    ensemble = line("serve", saved, "--temporal-ensemble", "0.01")
    assert ensemble.startswith("error: --temporal-ensemble: the policy predicts one action per")
    mode = line("serve", saved, "--execution-mode", "delay_aware")
    assert mode.startswith("error: --execution-mode: delay_aware executes old actions during a")
    latency = line("eval", saved, "--latency-ms", "-1")
    assert latency.startswith("error: --latency-ms: expected 0 to 60000, got -1")


def test_an_execution_of_the_yaml_is_checked_against_the_chunks_and_saved(
    tiny_run: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"execution\.horizon: expected 1, .*got 4"):
        check(tiny_run | {"execution": {"horizon": 4}}, RunConfig, "")
    data = tiny_run["data"] | {"window": {"horizon": 4}}
    changes = {"data": data, "execution": {"temporal_ensemble": 0.01}}
    config = check(tiny_run | changes, RunConfig, "")
    spec = make_robot_specs(config)[0]["robot"]
    assert spec.execution == Execution(temporal_ensemble=0.01)
    policy = make_policy(horizon=4)
    policy.specs["robot"] = replace(policy.spec, execution=spec.execution)
    loaded = load_policy(save_policy(policy, config.policy, tmp_path / "policy"), "cpu").robot()
    assert loaded.spec.execution == spec.execution and "exp(-0.01 k)" in str(loaded.spec)
    assert PolicyRunner(loaded).execution == spec.execution
    # An option of the command line replaces all of the saved execution.
    assert chosen_execution(loaded.spec, None, None) == spec.execution
    assert chosen_execution(loaded.spec, 2, None) == Execution(horizon=2)


def test_a_saved_execution_that_does_not_fit_is_named() -> None:
    spec = RobotSpec(ACTIONS, ("top",), (8, 8), horizon=4, execution=Execution(horizon=4))
    assert RobotSpec.from_dict(spec.to_dict()) == spec
    damaged = spec.to_dict() | {"execution": {"horizon": 5}}
    with pytest.raises(ConfigError, match=r"robot_spec\.execution\.horizon: expected 1 to 4"):
        RobotSpec.from_dict(damaged)


def acted(execution: Execution, frames: dict[str, list[int]], together: bool) -> dict[str, Any]:
    """Actions of every episode; each gets its frames in order and starts one step after the last.

    ``together``: in one runner, with one call for all episodes of a step.
    """
    policies = {key: GrowingPolicy(horizon=4) for key in frames}
    runners = {k: PolicyRunner(p, execution) for k, p in policies.items()}  # type: ignore[arg-type]
    if together:
        runners = dict.fromkeys(frames, runners[min(frames)])
    found: dict[str, Any] = {key: [] for key in frames}
    for step in range(10):
        live = {
            key: values[step - start]
            for start, (key, values) in enumerate(frames.items())
            if 0 <= step - start < len(values)
        }
        for keys in [list(live)] if together else [[key] for key in live]:
            if keys:
                actions = runners[keys[0]].act(keys, [observation(live[k]) for k in keys])
                for key, action in zip(keys, actions, strict=True):
                    found[key].append(action.tolist())
    return found


@pytest.mark.parametrize(
    "execution", [Execution(horizon=3), Execution(temporal_ensemble=0.5)], ids=["horizon", "acts"]
)
def test_parallel_episodes_do_not_mix(execution: Execution) -> None:
    frames = {"a": [1, 2, 3, 4, 5, 6], "b": [9, 7, 5, 3], "c": [2, 4, 8, 16, 32]}
    together = acted(execution, frames, together=True)
    assert together == acted(execution, frames, together=False)
    third = together["b"][2][0]
    weights = np.exp([0.0, -0.5, -1.0])
    mean = np.dot(weights, [0.27, 0.14, 0.05]) / weights.sum()
    assert third == pytest.approx(0.27 if execution.horizon else mean)


def test_binary_dimensions_take_the_nearer_of_their_two_values() -> None:
    space = ActionSpace(("x", "y", "grip"), ("m",) * 3, (-1.0,) * 3, (1.0,) * 3, binary=("grip",))
    runner = PolicyRunner(
        GrowingPolicy(space, horizon=3),  # type: ignore[arg-type]
        Execution(temporal_ensemble=0.0),
    )
    actions = [runner.act([0], [observation(v)])[0] for v in (10, 0, 0)]
    assert [a[0] for a in actions] == pytest.approx([0.1, 0.1, 0.1])
    assert [a[2] for a in actions] == [1.0, 1.0, 1.0]
    newest = PolicyRunner(
        GrowingPolicy(horizon=3),  # type: ignore[arg-type]
        Execution(temporal_ensemble=-1000.0),
    )
    actions = [newest.act([0], [observation(v)])[0] for v in (10, 20)]
    assert actions[1][0] == pytest.approx(0.2)  # and no overflow


def test_evaluation_replans_as_often_as_the_execution_says(tmp_path: Path) -> None:
    from vla.benchmarks.tabletop.layouts import LAYOUTS

    benchmark = open_benchmark({"name": "tabletop", "size": 32, "max_steps": 6})
    tasks = benchmark.select(["pick"])
    calls = {}
    for execution in (None, Execution(horizon=2), Execution(temporal_ensemble=0.01)):
        policy = RecordingPolicy(LAYOUTS["rt2"], image_size=(32, 32), horizon=3)
        path = tmp_path / "results.json"
        evaluate(policy, benchmark, tasks, 2, path, progress=False, execution=execution)
        calls[execution] = len(policy.calls)
        saved = json.loads(path.read_text())["execution"]
        assert Execution(**saved) == (execution or Execution())
    assert list(calls.values()) == [2, 3, 6]
