"""PolicyRunner: history, action queue and previous plan of parallel episodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fake_policies import RecordingPolicy, observation

from vla.inference.inputs import to_images, to_state
from vla.inference.runner import PolicyRunner
from vla.policies.execution import Execution


def runner_of(policy: RecordingPolicy, **options: Any) -> PolicyRunner:
    return PolicyRunner(policy, Execution(**options))  # type: ignore[arg-type]


def grey_values(images: torch.Tensor, row: int = 0) -> list[int]:
    """The grey value of every frame of the first camera, oldest first."""
    return [int(frame[0, 0, 0]) for frame in images[row, 0]]


def state_values(policy: RecordingPolicy) -> list[float]:
    state = policy.calls[-1].state
    assert state is not None
    return state[0, :, 0].tolist()


def test_history_starts_with_copies_of_the_first_frame_and_state() -> None:
    policy = RecordingPolicy(history=3, state_dim=1)
    runner = runner_of(policy)
    for value in (1, 2, 3, 4):
        runner.act([0], [observation(value, state=np.array([value]))])
    assert [grey_values(c.images) for c in policy.calls] == [
        [1, 1, 1],
        [1, 1, 2],
        [1, 2, 3],
        [2, 3, 4],
    ]
    assert state_values(policy) == [2.0, 3.0, 4.0]
    runner.reset(0)
    runner.act([0], [observation(9, state=np.array([9.0]))])
    assert grey_values(policy.calls[-1].images) == [9, 9, 9]
    assert state_values(policy) == [9.0, 9.0, 9.0]


def test_a_chunk_is_executed_before_the_next_call_and_the_history_grows_meanwhile() -> None:
    policy = RecordingPolicy(history=2, horizon=4)
    runner = runner_of(policy, horizon=2)
    actions = [runner.act([0], [observation(v)])[0, 0] for v in (1, 2, 3, 4)]
    assert np.allclose(actions, [0.10, 0.11, 0.20, 0.21])
    assert [grey_values(c.images) for c in policy.calls] == [[1, 1], [2, 3]]
    whole = runner_of(RecordingPolicy(horizon=4))
    actions = [whole.act([0], [observation()])[0, 0] for _ in range(5)]
    assert np.allclose(actions, [0.10, 0.11, 0.12, 0.13, 0.20])


def test_ensembling_averages_all_predictions_for_a_step() -> None:
    policy = RecordingPolicy(horizon=2)
    runner = runner_of(policy, temporal_ensemble=1.0)
    actions = [runner.act([0], [observation()])[0] for _ in range(3)]
    older, newer = 1.0, np.exp(-1.0)
    assert np.allclose(actions[0][:2], 0.10)
    assert np.allclose(actions[1][:2], (older * 0.11 + newer * 0.20) / (older + newer))
    assert np.allclose(actions[2][:2], (older * 0.21 + newer * 0.30) / (older + newer))
    assert all(a[2] in (0.0, 1.0) for a in actions[1:])  # the binary dimension is rounded
    assert len(policy.calls) == 3


def test_the_previous_plan_is_given_until_the_instruction_changes_or_the_episode_ends() -> None:
    policy = RecordingPolicy(plans=True)
    runner = runner_of(policy)
    for instruction in ("pick", "pick", "pick", "push", "push"):
        runner.act([0], [observation(instruction=instruction)])
    assert [c.previous_plans for c in policy.calls] == [[""], ["1"], ["2"], [""], ["4"]]
    runner.reset(0)
    runner.act([0], [observation(instruction="push")])
    assert policy.calls[-1].previous_plans == [""]


def test_the_previous_plan_is_kept_while_actions_are_queued() -> None:
    policy = RecordingPolicy(plans=True, horizon=3)
    runner = runner_of(policy)
    for _ in range(4):
        runner.act([0], [observation()])
    assert [c.previous_plans for c in policy.calls] == [[""], ["1"]]


def test_parallel_keys_are_independent_and_share_one_call() -> None:
    policy = RecordingPolicy(history=2, horizon=2, plans=True)
    runner = runner_of(policy)
    runner.act(["a"], [observation(1)])
    # "a" executes its queued action; "b" starts and alone needs the policy
    actions = runner.act(["a", "b"], [observation(2), observation(7, "wave")])
    assert np.allclose(actions[:, 0], [0.11, 0.20])
    assert len(policy.calls[1].images) == 1 and grey_values(policy.calls[1].images) == [7, 7]
    runner.reset("b")
    runner.act(["a", "b"], [observation(3), observation(8, "wave")])
    both = policy.calls[2]
    assert grey_values(both.images, 0) == [2, 3] and grey_values(both.images, 1) == [8, 8]
    assert both.instructions == ["go", "wave"] and both.previous_plans == ["1", ""]


@pytest.mark.parametrize("method", ["act", "predict"])
def test_a_call_that_fails_changes_nothing(method: str) -> None:
    policy = RecordingPolicy(history=2, plans=True)
    runner = runner_of(policy)
    runner.act(["a", "b"], [observation(1), observation(1)])
    call = getattr(runner, method)
    with pytest.raises(ValueError, match="no image for camera 'top'"):
        call(["a", "b"], [observation(2), {"images": {}, "instruction": "go"}])

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory")

    working, policy.predict = policy.predict, broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        call(["a", "b"], [observation(2), observation(2)])
    policy.predict = working  # type: ignore[method-assign]
    call(["a", "b"], [observation(3), observation(3)])
    last = policy.calls[-1]
    assert grey_values(last.images, 0) == grey_values(last.images, 1) == [1, 3]
    assert last.previous_plans == ["1", "1"]


def test_nothing_is_kept_for_the_key_none() -> None:
    policy = RecordingPolicy(plans=True)
    runner = runner_of(policy)
    chunks, plans = runner.predict([None], [observation(1)])
    assert chunks.shape == (1, 1, 3) and plans == ["1"]
    runner.predict([None], [observation(2)])
    assert policy.calls[-1].previous_plans == [""]


def test_images_are_given_in_the_policys_camera_order() -> None:
    views = {"top": np.full((8, 8, 3), 1, np.uint8), "wrist": np.full((8, 8, 3), 2, np.uint8)}
    images = to_images({"images": views}, RecordingPolicy(cameras=("wrist", "top")).spec)
    assert images.shape == (2, 1, 3, 8, 8) and images[:, 0, 0, 0, 0].tolist() == [2, 1]


def test_missing_cameras_and_wrong_states_are_named() -> None:
    with pytest.raises(ValueError, match="the policy has wrist, arm, the observation has top"):
        to_images(observation(), RecordingPolicy(cameras=("wrist", "arm")).spec)
    with pytest.raises(ValueError, match="needs a state of 6 numbers; the observation has none"):
        to_state(observation(), 6)
    with pytest.raises(ValueError, match=r"needs a state of 6 numbers; the observation has \(7,\)"):
        to_state(observation(state=np.zeros(7)), 6)
