"""Absolute actions that are learned as differences to the current state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from arm_data import Arm, arm_config, train_arm
from lerobot_files import write_lerobot3

from vla.data.config import WindowConfig
from vla.data.manifest import load_manifest
from vla.data.mapping import Mapping
from vla.data.pack import pack
from vla.data.pipeline import BatchStream
from vla.data.relative import relative_dims, relative_statistics
from vla.data.robot import RobotSource
from vla.errors import DataError
from vla.evaluation.offline import offline
from vla.models.actions.normalise import Normaliser
from vla.types import ActionSpace, Episode

pytestmark = pytest.mark.filterwarnings("default")  # Lightning and tensorboard themselves warn


def test_training_data_is_relative_and_predictions_are_absolute(tmp_path: Path) -> None:
    pack(Arm(), tmp_path / "arm", 2, 0.25, False)
    stream = BatchStream(arm_config(tmp_path / "arm", WindowConfig(horizon=3)), 4, False)
    part = next(iter(stream)).robots[0]
    whole = part.mask_KH.all(1)
    expected = torch.tensor(
        [[0.2, 0.1], [0.4, 0.2], [0.6, 0.3]]
    )  # all steps of a chunk are relative to one state
    assert torch.allclose(
        part.actions_KHA[whole][..., :2], expected.expand(int(whole.sum()), 3, 2), atol=1e-5
    )
    assert set(part.actions_KHA[..., 2].unique().tolist()) == {0.0, 1.0}
    policy: Any = train_arm(tmp_path, "regression")
    assert policy.spec.relative == (1, 0, -1) and policy.spec.state_dim == 2
    torch.nn.init.zeros_(policy.heads[0].out.weight)
    torch.nn.init.zeros_(policy.heads[0].out.bias)  # the middle of each step's own differences
    images, state = (
        torch.zeros((2, 1, 1, 3, 32, 32), dtype=torch.uint8),
        torch.tensor([[[1.0, 2.0]], [[-1.0, 0.5]]]),
    )
    acted = policy.predict(images, ["stage_runs"] * 2, state_BTP=state)[0]
    ahead = np.array([[0.2, 0.1], [0.4, 0.2], [0.6, 0.3]])
    assert np.allclose(acted[:, :, :2], state.numpy()[:, :, ::-1] + ahead, atol=1e-5)
    with pytest.raises(
        ValueError, match=r"relative to the measured state: give state_BTP of shape \(B, T, 2\)"
    ):
        policy.predict(images, ["stage_runs"] * 2)
    errors = offline(policy.robot(), tmp_path / "arm", progress=False).errors
    assert np.allclose(errors["policy"][:2], 0.0, atol=1e-5) and np.allclose(
        errors["policy, chunk"][:2], 0.0, atol=1e-5
    )


def test_actions_without_a_state_of_the_same_name_are_refused(tmp_path: Path) -> None:
    pack(Arm(("left", "right")), tmp_path / "arm", 2, 0.25, False)
    with pytest.raises(
        DataError,
        match=r"no action dim has the name of a state dim "
        r"\(actions elbow, wrist, grip; state left, right\)",
    ):
        BatchStream(arm_config(tmp_path / "arm", WindowConfig()), 4, True)
    with pytest.raises(DataError, match=r"data\.relative: no data set 'amr'; there are arm"):
        wrong = replace(arm_config(tmp_path / "arm", WindowConfig()), relative=("amr",))
        BatchStream(wrong, 4, True)


@pytest.mark.parametrize("rate", [None, 2.5])
def test_the_previous_action_can_be_a_state_and_the_origin_of_differences(
    rate: float | None, tmp_path: Path
) -> None:
    path = str(write_lerobot3(tmp_path / "arm"))
    plain, extended = (
        RobotSource(
            path,
            Mapping(size=32, rate_hz=rate, binary={"grip": 0.5}, append_previous_action=extended),
        )
        for extended in (False, True)
    )
    names = list(extended.state_names)
    assert names == [*plain.state_names, "last x", "last y", "last grip"]
    for index in range(len(extended)):
        before, after = plain[index], extended[index]
        assert (
            before.state is not None
            and after.state is not None
            and np.array_equal(before.actions, after.actions)
        )
        own = before.state.shape[1]
        assert np.array_equal(after.state[:, :own], before.state) and np.array_equal(
            after.state[1:, own:], after.actions[:-1]
        )
        expected = [
            before.state[0, names.index(n)] if n in names[:own] else 0.0 for n in ("x", "y", "grip")
        ]
        assert np.allclose(after.state[0, own:], expected)  # no action before the first
    pack(extended, tmp_path / "packed", 1, 0.34, False)
    dims = relative_dims(tmp_path / "packed", load_manifest(tmp_path / "packed"))
    assert dims == (names.index("last x"), names.index("last y"), names.index("last grip"))
    only = RobotSource(path, Mapping(size=32, state=[], append_previous_action=True))
    assert list(only.state_names) == ["last x", "last y", "last grip"] and only[0].state is not None
    assert RobotSource(path, Mapping(size=32, state=[]))[0].state is None


def test_every_step_of_a_chunk_has_its_own_bounds() -> None:
    space = ActionSpace(("reach", "grip"), ("m", ""), (-9.0, 0.0), (9.0, 1.0), ("grip",))
    rng = np.random.default_rng(0)
    chunks = np.stack([rng.normal(0, [0.1, 0.2, 0.4], (500, 3)), rng.integers(0, 2, (500, 3))], 2)
    longer = np.concatenate(
        [chunks, np.full((9, 3, 2), np.nan)]
    )  # windows past the end, all but their first step
    longer[500:, 0] = chunks[:9, 0]
    statistics = relative_statistics(longer)
    normal = Normaliser(space, statistics, "min_max")
    unit = normal(torch.from_numpy(chunks).float())
    assert torch.allclose(unit.amax((0,)), torch.ones(3, 2)) and torch.allclose(
        unit.amin((0,)), -torch.ones(3, 2)
    )
    assert torch.allclose(normal.inverse(unit), torch.from_numpy(chunks).float(), atol=1e-5)
    assert normal.quantiles is not None and normal.quantiles.shape == (257, 2)
    share = (unit[..., 0].flatten()[:, None] <= normal.quantiles[None, :, 0]).float().mean(0)
    assert torch.allclose(share, torch.linspace(0, 1, 257), atol=0.02)  # of all steps together


class Gripper(Arm):
    """An arm whose state ends with its previous gripper action, which changes every third step."""

    def __init__(self) -> None:
        super().__init__(("wrist", "elbow", "last grip"))

    def __getitem__(self, index: int) -> Episode:
        made = super().__getitem__(index)
        grip = (np.arange(index, index + 10) // 3 % 2).astype(np.float32)
        actions = np.concatenate([made.actions[:, :2], grip[:, None]], 1)
        before = np.concatenate([[grip[0]], grip[:-1]])[:, None]
        return Episode(
            made.key,
            made.instruction,
            made.images,
            actions,
            state=np.concatenate([made.state, before], 1),
        )


@pytest.mark.parametrize("head", ["regression", "mixture", "flow", "token"])
def test_a_binary_action_is_learned_as_a_change_and_predicted_as_a_value(
    head: str, tmp_path: Path
) -> None:
    pack(Gripper(), tmp_path / "arm", 2, 0.25, False)
    stream = BatchStream(arm_config(tmp_path / "arm", WindowConfig(horizon=3)), 4, False)
    changes = torch.cat([b.robots[0].actions_KHA[:, 0, 2] for b in stream])
    assert set(changes.tolist()) == {-1.0, 0.0, 1.0}
    policy: Any = train_arm(tmp_path, head)
    assert policy.spec.action_space.binary == ("grip",) and policy.spec.learned_space.binary == ()
    images, state = (
        torch.zeros((2, 1, 1, 3, 32, 32), dtype=torch.uint8),
        torch.tensor([[[1.0, 2.0, 1.0]], [[-1.0, 0.5, 0.0]]]),
    )
    assert set(
        policy.predict(images, ["stage_runs"] * 2, state_BTP=state)[0][..., 2].flatten().tolist()
    ) <= {0.0, 1.0}
    if head == "regression":  # no change: the middle of the differences
        torch.nn.init.zeros_(policy.heads[0].out.weight)
        torch.nn.init.zeros_(policy.heads[0].out.bias)
        assert policy.predict(images, ["stage_runs"] * 2, state_BTP=state)[0][..., 2].tolist() == [
            [1.0] * 3,
            [0.0] * 3,
        ]
