"""Several robots in one policy: each its own action space, cameras, statistics and head; asked by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_POLICY
from robot_files import write_folder, write_lerobot3
from test_policy import robot_batch

from vla.config import ConfigError, build, check
from vla.data.manifest import load_manifest, pooled
from vla.data.mapping import Mapping
from vla.data.pack import pack
from vla.data.robot import RobotSource
from vla.evaluate import evaluate
from vla.offline import offline
from vla.policy import VLAPolicy
from vla.train import RunConfig, make_contracts, train

pytestmark = pytest.mark.filterwarnings("default")  # Lightning and tensorboard warn about their own affairs


@pytest.fixture
def mixed_run(tiny_run: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The tabletop and an arm with three action dims and two cameras."""
    source = RobotSource(str(write_lerobot3(tmp_path / "arm")), Mapping(size=32, binary={"grip": 0.5}))
    pack(source, tmp_path / "packed", 1, 0.34, False)
    data = tiny_run["data"]
    data["datasets"] = data["datasets"] | {"arm": str(tmp_path / "packed")}
    data["mixture"] = {"robot": 0.4, "arm": 0.3, "web": 0.3}
    data["cameras"] = {"arm": ["wrist", "top"]}
    tiny_run["data"] = data
    tiny_run["train"] = tiny_run["train"] | {"batch_size": 8, "rollouts": 1}
    return tiny_run


@pytest.mark.parametrize("head", [{"name": "token"}, {"name": "regression"}], ids=["token", "regression"])
def test_two_unlike_robots_train_act_and_reload(mixed_run: dict[str, Any], head: dict[str, Any], tmp_path: Path) -> None:
    mixed_run["policy"] = TINY_POLICY | {"head": head}
    policy = VLAPolicy.load(train(check(mixed_run, RunConfig, ""), progress=False))
    assert list(policy.contracts) == ["arm", "robot"]
    table, arm = policy.robot("robot"), policy.robot("arm")
    assert table.contract.cameras == ("top",) and arm.contract.cameras == ("wrist", "top") and arm.contract.action_space.dim == 3
    views = torch.randint(0, 256, (2, 2, 1, 3, 32, 32), dtype=torch.uint8)
    actions = arm.act(views, ["push the red block"] * 2)
    assert actions.shape == (2, 1, 3) and set(np.unique(actions[..., 2])) <= {0.0, 1.0}
    (first, _), (_, second) = (policy.prefix(v, "arm").tokens_BND.chunk(2, 1) for v in (views, views.flip(1)))
    assert not torch.allclose(first, second)  # the same picture from another camera is another thing
    assert policy.act(views[:, :1], ["pick the apple"] * 2, "robot").shape == (2, 1, 8)
    with pytest.raises(ValueError, match="commands several robots; ask for one by name: arm, robot"):
        policy.act(views, ["push"] * 2)
    with pytest.raises(ValueError, match="knows no robot 'leg'; it commands arm, robot"):
        policy.robot("leg")
    assert offline(arm, tmp_path / "packed", progress=False).names == arm.contract.action_space.names
    results, _ = evaluate(table, "vla/Tabletop-v0", {"size": 32}, 1, ["pick"], progress=False)
    assert len(results) == 1


def test_data_sets_of_one_robot_share_bounds_and_true_statistics(tiny_run: dict[str, Any], tmp_path: Path) -> None:
    for name, lengths in (("a", (5, 8)), ("b", (3, 9, 6))):
        source = RobotSource(str(write_folder(tmp_path / f"{name}_raw", lengths)), Mapping(size=32))
        pack(source, tmp_path / name, 1, 0.0, False)
    tiny_run["data"] = {
        "datasets": {n: str(tmp_path / n) for n in "ab"}, "mixture": {"a": 0.5, "b": 0.5}, "robots": {"a": "arm", "b": "arm"},
    }  # fmt: skip
    contracts, _ = make_contracts(check(tiny_run, RunConfig, ""))
    assert list(contracts) == ["arm"]
    values = np.concatenate([np.load(tmp_path / n / "actions.npy") for n in "ab"])
    statistics = contracts["arm"].statistics["actions"]
    assert np.allclose(statistics["q99"], np.quantile(values, 0.99, axis=0), atol=1e-6) and np.allclose(
        statistics["mean"], values.mean(0), atol=1e-6
    )
    assert np.allclose(contracts["arm"].action_space.high, values.max(0), atol=2e-3)
    assert pooled([tmp_path / "a"]) == load_manifest(tmp_path / "a")["statistics"]
    tiny_run["data"]["datasets"]["robot"] = tiny_run["data"]["datasets"]["a"]
    source = RobotSource(str(tmp_path / "a_raw"), Mapping(size=32, action=["action[0:2]"]))
    pack(source, tmp_path / "c", 1, 0.0, False)
    tiny_run["data"]["datasets"] = {"a": str(tmp_path / "a"), "c": str(tmp_path / "c")}
    tiny_run["data"]["robots"] = {"a": "arm", "c": "arm"}
    with pytest.raises(ConfigError, match=r"a, c have different action dims, so they are not one robot \(arm\)"):
        make_contracts(check(tiny_run, RunConfig, ""))


def test_one_robots_rows_do_not_touch_another_ones_head() -> None:
    from test_zoo import WORDS, contract

    from vla.decoders.tokenizer import train_tokenizer
    from vla.schema import Batch

    contracts = {"robot": contract(1), "other": contract(1)}
    policy = build(
        "policy", TINY_POLICY | {"head": {"name": "regression"}}, contracts=contracts, tokenizer=train_tokenizer(WORDS, 800)
    )
    policy.losses(Batch([robot_batch(2)])).robots[0].loss_M.mean().backward()
    assert all(p.grad is not None for p in policy.head("robot").parameters())
    assert all(p.grad is None for p in policy.head("other").parameters())
