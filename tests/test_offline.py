"""Open loop: errors are what they are, and the plot shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vla.actions.normalise import Normaliser
from vla.contract import Contract
from vla.data.manifest import DataError, load_manifest
from vla.offline import offline, plot, rows
from vla.schema import ActionSpace


class Off:
    """Says the recorded mean plus one tenth of each dim's range, whatever it sees."""

    device = "cpu"

    def __init__(self, manifest: dict[str, Any], horizon: int, history: int) -> None:
        space = ActionSpace.from_dict(manifest["action_space"])
        self.contract = Contract(space, ("top",), (32, 32), history=history, horizon=horizon, statistics=manifest["statistics"])
        self.normaliser = Normaliser(space, None)
        self.mean = np.array(manifest["statistics"]["actions"]["mean"], np.float32)
        self.seen: list[tuple[int, ...]] = []

    def act(self, images: torch.Tensor, instructions: list[str]) -> np.ndarray:
        self.seen.append(tuple(images.shape[1:]))
        return np.broadcast_to(self.mean, (len(images), self.contract.horizon, len(self.mean))).copy()


def test_a_policy_that_says_the_mean_is_as_good_as_the_mean(tiny_data: dict[str, str]) -> None:
    manifest = load_manifest(tiny_data["robot"])
    policy = Off(manifest, horizon=3, history=2)
    result = offline(policy, tiny_data["robot"], progress=False)
    assert np.allclose(result.l1, result.errors["mean action"], atol=1e-6) and result.frames == sum(
        len(t.recorded) for t in result.trajectories
    )
    assert set(policy.seen) == {(1, 2, 3, 32, 32)}
    table = rows(result)
    assert [r["dim"] for r in table] == [*manifest["action_space"]["names"], "mean, of range"]
    assert table[-1]["policy"] == table[-1]["mean action"]
    assert plot(result)[:4] == b"\x89PNG"
    steps = [t.recorded for t in result.trajectories]  # the last action held over chunks of three, by hand
    mean = np.array(manifest["statistics"]["actions"]["mean"], np.float32)
    held = [np.abs((a[t - 1] if t else mean) - a[t + k]) for a in steps for t in range(len(a)) for k in range(3) if t + k < len(a)]
    assert np.allclose(result.errors["last action, chunk"], np.mean(held, 0), atol=1e-6) and "present state" not in result.errors
    train = offline(policy, tiny_data["robot"], split="train", episodes=2, progress=False)
    assert len(train.trajectories) == 2


def test_another_robot_and_an_empty_split_are_refused(tiny_data: dict[str, str], tmp_path: Path) -> None:
    manifest = load_manifest(tiny_data["robot"])
    policy = Off(manifest, 1, 1)
    short = policy.contract.action_space
    policy.contract.action_space = ActionSpace(short.names[:3], short.units[:3], short.low[:3], short.high[:3])
    with pytest.raises(DataError, match=r"actions of 8 numbers, the policy gives 3"):
        offline(policy, tiny_data["robot"], progress=False)
