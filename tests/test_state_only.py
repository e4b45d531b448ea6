"""Policies without cameras: from a data set without images to actions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_POLICY
from policies import WORDS
from robot_files import action, write_folder, write_robomimic

from vla.config import build, check
from vla.data.manifest import load_manifest
from vla.data.mapping import Mapping
from vla.data.pack import pack, pack_from
from vla.data.robot import RobotSource
from vla.errors import ConfigError, DataError
from vla.evaluation.offline import offline
from vla.inference.runner import PolicyRunner
from vla.models.decoders.tokenizer import train_tokenizer
from vla.policies.checkpoint import load_policy
from vla.policies.spec import RobotSpec
from vla.serve.service import PolicyService
from vla.training.config import RunConfig
from vla.training.run import train
from vla.types import ActionSpace, Batch, RobotBatch

STATE = ["source.mapping.state=[obs/pose, obs/object]", "source.mapping.fps=20"]
SPACE = ActionSpace(("x", "y"), ("m", "m"), (-1.0, -1.0), (1.0, 1.0))
STATISTICS = {k: [v] * 3 for k, v in {"min": -1.0, "q01": -1.0, "q99": 1.0, "max": 1.0}.items()}
STATISTICS |= {"mean": [0.0] * 3, "std": [0.5] * 3}


def write_low_dim(file: Path, lengths: tuple[int, ...] = (9, 7, 8, 6, 9, 7)) -> Path:
    """HDF5 in robomimic's layout without images."""
    import h5py

    with h5py.File(file, "w") as root:
        data = root.create_group("data")
        data.attrs["problem_info"] = json.dumps({"language_instruction": "lift the cup"})
        for e, n in enumerate(lengths):
            demo = data.create_group(f"demo_{e}")
            demo["actions"] = np.array([action(e, t) for t in range(n)])
            demo["obs/pose"] = np.array([action(e, t)[:2] for t in range(n)])
            demo["obs/object"] = np.array([[e, t, 0.0] for t in range(n)])
    return file


def spec(cameras: tuple[str, ...] = (), history: int = 1) -> RobotSpec:
    return RobotSpec(
        SPACE,
        cameras,
        (32, 32) if cameras else (0, 0),
        history=history,
        horizon=2,
        statistics={"state": STATISTICS},
    )


def policy_of(specs: dict[str, RobotSpec], **parts: Any) -> Any:
    torch.manual_seed(0)
    config = TINY_POLICY | {"state": True} | parts
    return build("policy", config, specs=specs, tokenizer=train_tokenizer(WORDS, 800)).eval()


def rows(robot: str = "arm", views: int = 0, history: int = 1) -> RobotBatch:
    side = 32 if views else 0
    return RobotBatch(
        robot=robot,
        images_BVTCHW=torch.zeros((2, views, history, 3, side, side), dtype=torch.uint8),
        instructions=["pick up", "pick the red apple"],
        plans=["apple", "apple"],
        actions_KHA=torch.rand(2, 2, 2),
        mask_KH=torch.ones(2, 2, dtype=torch.bool),
        image_index_K=torch.arange(2),
        sources=[robot] * 2,
        state_BTP=torch.rand(2, history, 3),
    )


def test_data_without_images_is_packed_trained_evaluated_and_served(tmp_path: Path) -> None:
    file = write_low_dim(tmp_path / "low_dim.hdf5")
    pack_from(file, tmp_path / "data", [*STATE, "shard_size=1"])
    manifest = load_manifest(tmp_path / "data")
    assert manifest.cameras == () and manifest.image_size == (0, 0) and manifest.samples == 6
    assert any("no cameras" in note for note in manifest.notes)
    run = {
        "policy": TINY_POLICY | {"head": {"name": "regression"}, "state": True},
        "data": {
            "datasets": {"arm": str(tmp_path / "data")},
            "sampling_weights": {"arm": 1.0},
            "window": {"cameras": [], "horizon": 3, "history": 2},
            "shuffle": 8,
        },
        "output_dir": str(tmp_path / "run"),
        "train": {
            "steps": 2,
            "batch_size": 4,
            "val_every": 2,
            "save_every": 2,
        },
        "trainer": {"accelerator": "cpu"},
    }
    policy = load_policy(train(check(run, RunConfig, ""), progress=False))
    assert policy.spec.cameras == () and policy.spec.state_dim == 5 and policy.vision is None
    result = offline(policy.robot(), tmp_path / "data", "train", progress=False)
    assert result.frames > 20 and np.isfinite(result.l1).all()
    service = PolicyService(policy.robot())
    service.runner.predict([None], [service.blank_observation()])
    request = service.observation({"state": np.ones(5)}, "lift the cup", client="one")
    runner = PolicyRunner(policy.robot())
    bare = {"instruction": "lift the cup", "state": np.ones(5, np.float32)}
    assert np.allclose(runner.act(["k"], [bare]), service.runner.act(["one"], [request]), atol=1e-6)


def test_the_state_alone_changes_the_action() -> None:
    policy = policy_of({"arm": spec()}, head={"name": "regression"})
    one, two = (policy.act({}, "pick up", state=[x, 0.2, 0.1]) for x in (0.5, -0.5))
    assert one.shape == (2, 2) and not np.allclose(one, two)
    both = policy.act([{}, {}], "pick up", state=[[0.5, 0.2, 0.1], [-0.5, 0.2, 0.1]])
    assert np.allclose(both, [one, two], atol=1e-5)
    with pytest.raises(ValueError, match="unknown camera 'top'; the policy has no cameras"):
        policy.act({"top": np.zeros((8, 8, 3), np.uint8)}, "pick up", state=[0.0] * 3)
    with pytest.raises(ValueError, match="state: this policy needs"):
        policy.act({}, "pick up")


@pytest.mark.parametrize(
    ("head", "slots"),
    [("regression", {"vision": None, "connector": None}), ("token", {}), ("flow", {})],
)
def test_every_kind_of_head_learns_from_the_state(head: str, slots: dict[str, Any]) -> None:
    policy = policy_of({"arm": spec()}, head={"name": head}, **slots)
    policy.losses(Batch([rows()])).robots[0].loss_M.mean().backward()
    gradient = policy.states[0].project.weight.grad
    assert gradient is not None and float(gradient.abs().sum()) > 0
    assert policy.act({}, "pick up", state=[0.1] * 3).shape == (2, 2)


def test_a_robot_with_cameras_beside_one_without() -> None:
    policy = policy_of({"blind": spec(), "seeing": spec(("top",))}, head={"name": "regression"})
    out = policy.losses(Batch([rows("blind"), rows("seeing", views=1)]))
    assert len(out.robots) == 2
    assert policy.act({}, "pick", state=[0.1] * 3, robot="blind").shape == (2, 2)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"state": False}, "'arm' has neither cameras nor a state input; set policy.state=true"),
        ({"vision": None}, "needs vision and connector; give both"),
    ],
)
def test_a_policy_without_input_is_refused(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        policy_of({"arm": spec()}, **parts)


def test_data_with_neither_cameras_nor_state_is_refused(tmp_path: Path) -> None:
    file = write_low_dim(tmp_path / "low_dim.hdf5", (3,))
    with pytest.raises(DataError, match=r"neither cameras nor a state; .*obs/object") as error:
        RobotSource(str(file), Mapping(fps=20, state=[]))
    assert "\n" not in str(error.value)


def test_images_can_be_left_out(tmp_path: Path) -> None:
    file = write_robomimic(tmp_path / "d.hdf5")
    source = RobotSource(str(file), Mapping(fps=10, cameras={}))
    manifest = pack(source, tmp_path / "data", progress=False)
    assert manifest.cameras == () and source[0].images == {} and source[0].state is not None
    folder = RobotSource(str(write_folder(tmp_path / "f")), Mapping(size=16))
    assert folder.image_size == (16, 16) and not any("no cameras" in n for n in folder.notes)
