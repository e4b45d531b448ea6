"""Several robots in one policy: each has its own action space, cameras, statistics and head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_POLICY
from lerobot_files import write_lerobot3
from policies import WORDS, robot_batch, spec
from robot_files import write_folder

from vla.config import build, check
from vla.data.manifest import load_manifest, pooled_statistics
from vla.data.mapping import Mapping
from vla.data.pack import pack
from vla.data.robot import RobotSource
from vla.errors import ConfigError
from vla.evaluation.offline import offline
from vla.evaluation.rollout import evaluate, open_benchmark
from vla.models.decoders.tokenizer import train_tokenizer
from vla.policies.checkpoint import load_policy
from vla.training.run import RunConfig, make_robot_specs, train
from vla.types import Batch

# Lightning and TensorBoard emit warnings that have no bearing on this package
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def mixed_run(tiny_run: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The tabletop robot and an arm with three action dimensions and two cameras."""
    source = RobotSource(
        str(write_lerobot3(tmp_path / "arm")), Mapping(size=32, binary={"grip": 0.5})
    )
    pack(source, tmp_path / "packed", 1, 0.34, False)
    data = tiny_run["data"]
    data["datasets"] = data["datasets"] | {"arm": str(tmp_path / "packed")}
    data["sampling_weights"] = {"robot": 0.4, "arm": 0.3, "web": 0.3}
    data["cameras"] = {"arm": ["wrist", "top"]}
    tiny_run["data"] = data
    tiny_run["train"] = tiny_run["train"] | {"batch_size": 8, "eval": {"episodes": 1}}
    return tiny_run


@pytest.mark.parametrize(
    "head",
    [pytest.param({"name": "token"}, marks=pytest.mark.slow), {"name": "regression"}],
    ids=["token", "regression"],
)
def test_two_different_robots_train_act_and_reload(
    mixed_run: dict[str, Any], head: dict[str, Any], tmp_path: Path
) -> None:
    mixed_run["policy"] = TINY_POLICY | {"head": head}
    policy = load_policy(train(check(mixed_run, RunConfig, ""), progress=False))
    assert list(policy.specs) == ["arm", "robot"]
    table, arm = policy.robot("robot"), policy.robot("arm")
    assert (
        table.spec.cameras == ("top",)
        and arm.spec.cameras == ("wrist", "top")
        and arm.spec.action_space.dim == 3
    )
    views = torch.randint(0, 256, (2, 2, 1, 3, 32, 32), dtype=torch.uint8)
    actions = arm.predict(views, ["push the red block"] * 2)[0]
    assert actions.shape == (2, 1, 3) and set(np.unique(actions[..., 2])) <= {0.0, 1.0}
    (first, _), (_, second) = (
        policy.prefix(v, "arm").tokens_BND.chunk(2, 1) for v in (views, views.flip(1))
    )
    assert not torch.allclose(first, second)  # the order of the cameras matters
    assert policy.predict(views[:, :1], ["pick the apple"] * 2, "robot")[0].shape == (2, 1, 8)
    with pytest.raises(ValueError, match="the policy has 2 robots; choose one by name: arm, robot"):
        policy.predict(views, ["push"] * 2)
    with pytest.raises(ValueError, match="has no robot 'leg'; its robots: arm, robot"):
        policy.robot("leg")
    assert offline(arm, tmp_path / "packed", progress=False).names == arm.spec.action_space.names
    benchmark = open_benchmark({"name": "tabletop", "size": 32}, table.spec.cameras)
    results, _ = evaluate(table, benchmark, benchmark.select(["pick"]), 1, progress=False)
    assert len(results) == 1


def test_data_sets_of_one_robot_share_bounds_and_pooled_statistics(
    tiny_run: dict[str, Any], tmp_path: Path
) -> None:
    for name, lengths in (("a", (5, 8)), ("b", (3, 9, 6))):
        source = RobotSource(str(write_folder(tmp_path / f"{name}_raw", lengths)), Mapping(size=32))
        pack(source, tmp_path / name, 1, 0.0, False)
    tiny_run["data"] = {
        "datasets": {n: str(tmp_path / n) for n in "ab"},
        "sampling_weights": {"a": 0.5, "b": 0.5},
        "robots": {"a": "arm", "b": "arm"},
    }
    specs, _ = make_robot_specs(check(tiny_run, RunConfig, ""))
    assert list(specs) == ["arm"]
    values = np.concatenate([np.load(tmp_path / n / "actions.npy") for n in "ab"])
    statistics = specs["arm"].statistics["actions"]
    assert np.allclose(
        statistics["q99"], np.quantile(values, 0.99, axis=0), atol=1e-6
    ) and np.allclose(statistics["mean"], values.mean(0), atol=1e-6)
    assert np.allclose(specs["arm"].action_space.high, values.max(0), atol=2e-3)
    assert pooled_statistics([tmp_path / "a"]) == load_manifest(tmp_path / "a").statistics
    tiny_run["data"]["datasets"]["robot"] = tiny_run["data"]["datasets"]["a"]
    source = RobotSource(str(tmp_path / "a_raw"), Mapping(size=32, action=["action[0:2]"]))
    pack(source, tmp_path / "c", 1, 0.0, False)
    tiny_run["data"]["datasets"] = {"a": str(tmp_path / "a"), "c": str(tmp_path / "c")}
    tiny_run["data"]["robots"] = {"a": "arm", "c": "arm"}
    tiny_run["data"]["sampling_weights"] = {"a": 0.5, "c": 0.5}
    with pytest.raises(
        ConfigError,
        match=r"a, c have different action dimensions, so they are not one robot \(arm\)",
    ):
        make_robot_specs(check(tiny_run, RunConfig, ""))


def test_data_sets_of_one_robot_need_images_of_one_size_and_fit(
    tmp_path: Path, tiny_run: dict[str, Any]
) -> None:
    write_folder(tmp_path / "raw")
    for name, mapping in (("a", Mapping(size=32)), ("b", Mapping(size=32, fit="pad"))):
        pack(RobotSource(str(tmp_path / "raw"), mapping), tmp_path / name, 1, 0.0, False)
    datasets = {name: str(tmp_path / name) for name in "ab"}
    weights, robots = {"a": 1.0, "b": 1.0}, {"a": "arm", "b": "arm"}
    tiny_run["data"] = {"datasets": datasets, "sampling_weights": weights, "robots": robots}
    message = r"robot arm have images of different size or fit \(a: .32, 32., stretch; b: .*, pad"
    with pytest.raises(ConfigError, match=message):
        make_robot_specs(check(tiny_run, RunConfig, ""))
    tiny_run["data"]["robots"] = {}
    specs, _ = make_robot_specs(check(tiny_run, RunConfig, ""))
    assert {name: spec.image_fit for name, spec in specs.items()} == {"a": "stretch", "b": "pad"}


def test_the_loss_of_one_robot_gives_no_gradient_to_the_head_of_another() -> None:
    specs = {"robot": spec(1), "other": spec(1)}
    policy = build(
        "policy",
        TINY_POLICY | {"head": {"name": "regression"}},
        specs=specs,
        tokenizer=train_tokenizer(WORDS, 800),
    )
    policy.losses(Batch([robot_batch(2)])).robots[0].loss_M.mean().backward()
    assert all(p.grad is not None for p in policy.head("robot").parameters())
    assert all(p.grad is None for p in policy.head("other").parameters())
