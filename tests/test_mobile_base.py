"""RT-1's 11 dimensions end to end: a base that moves, and the modes arm, base and terminate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY

from vla.benchmarks.tabletop.benchmark import TabletopBenchmark
from vla.benchmarks.tabletop.env import Tabletop
from vla.benchmarks.tabletop.expert import expert_command
from vla.benchmarks.tabletop.layouts import LAYOUTS, to_action
from vla.benchmarks.tabletop.scene import SceneConfig
from vla.benchmarks.tabletop.sources import TabletopSource
from vla.benchmarks.tabletop.tasks import SKILLS
from vla.benchmarks.tabletop.world import ARM_REACH, Command
from vla.config import check
from vla.data.manifest import load_manifest
from vla.data.pack import pack
from vla.evaluation.offline import offline
from vla.evaluation.replay import replay
from vla.evaluation.rollout import evaluate, open_benchmark
from vla.policies.checkpoint import load_policy
from vla.training.run import RunConfig, train

pytestmark = pytest.mark.filterwarnings("default")
MODE = LAYOUTS["rt1"].names.index("mode")
BASE = slice(7, 9)  # base_dx, base_dy


def mobile_source(episodes: int) -> TabletopSource:
    scene = SceneConfig(skills=("pick",), cards=(0, 0), concepts=8)
    options = {"size": 32, "layout": "rt1", "noise": 0.0, "mobile_base": True}
    return TabletopSource(scene, episodes, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mobile") / "robot"
    pack(mobile_source(6), out, 3, 0.34, progress=False)
    return out


@pytest.mark.parametrize("skill", SKILLS)
def test_the_expert_drives_the_base_and_succeeds(skill: str) -> None:
    env, modes = Tabletop(size=16, layout="rt1", mobile_base=True), []
    for seed in range(20):
        env.reset(seed=seed, options={"task": skill})
        ended, info = False, {}
        while not ended:
            action = to_action("rt1", expert_command(env.world, env.task))
            modes.append(int(action[MODE]))
            observation, _, terminated, truncated, info = env.step(action)
            ended = terminated or truncated
            gripper, base = observation["state"][:2], observation["state"][7:9]
            assert np.abs(gripper - base).max() <= ARM_REACH + 1e-5
        assert info["success"] and info["correct_termination"] and not info["clipped"]
    shares = np.bincount(modes, minlength=3) / len(modes)
    assert (shares > 0.05).all(), shares


def test_the_base_carries_the_arm_and_limits_its_reach() -> None:
    env = Tabletop(size=16, layout="rt1", mobile_base=True)
    start, _ = env.reset(seed=0)
    assert np.array_equal(start["state"][:2], start["state"][7:9])
    toward = -np.sign(start["state"][:2])  # to the middle of the table
    for _ in range(4):
        arm, *_ = env.step(to_action("rt1", Command(*(0.08 * toward))))
    moved = arm["state"] - start["state"]
    assert np.allclose(moved[:2], ARM_REACH * toward, atol=1e-5) and not moved[7:].any()
    base, *_, info = env.step(to_action("rt1", Command(*(0.05 * toward), base=True)))
    moved = base["state"] - arm["state"]
    assert np.allclose(moved[:2], 0.05 * toward, atol=1e-5) and np.allclose(moved[7:9], moved[:2])
    assert info["base_steps"] == 1


def test_demonstrations_switch_between_the_modes() -> None:
    source = mobile_source(4)
    modes = []
    for index in range(4):
        actions = source[index].actions
        modes += actions[:, MODE].astype(int).tolist()
        in_base_mode = actions[:, MODE] == 1
        assert not actions[in_base_mode, :6].any() and not actions[~in_base_mode, BASE].any()
        assert actions[in_base_mode, BASE].any() or not in_base_mode.any()
        assert source[index].state.shape[1] == 10
    assert set(modes) == {0, 1, 2}
    assert "mobile_base" not in TabletopSource(SceneConfig(), 1).describe()


def test_the_layout_must_have_actions_of_the_base() -> None:
    for make in (Tabletop, TabletopBenchmark, lambda **o: TabletopSource(SceneConfig(), 1, **o)):
        with pytest.raises(ValueError, match=r"mobile_base=true: layout 'rt2' has no actions"):
            make(mobile_base=True)
    with pytest.raises(ValueError, match="unknown action layout 'rt3'; choose rt2 or rt1"):
        TabletopSource(SceneConfig(), 1, layout="rt3")
    example = yaml.safe_load((REPOSITORY / "configs/pack/mobile_robot.yaml").read_text())["source"]
    assert example["mobile_base"] and example["layout"] == "rt1"


def test_pack_train_decode_and_evaluate(packed: Path, tiny_run: dict[str, Any]) -> None:
    manifest = load_manifest(packed)
    assert manifest.action_space == LAYOUTS["rt1"] and manifest.action_space.integer == ("mode",)
    low, high = (manifest.statistics["actions"][k] for k in ("min", "max"))
    assert (low[MODE], high[MODE]) == (0, 2) and low[7] < high[7] and low[8] < high[8]
    results, differences, _ = replay(packed, {}, 2)
    assert all(r.success for r in results) and max(d or 0.0 for d in differences) < 1e-5
    policy = trained(packed, tiny_run, steps=2)
    check_modes(policy, packed)


def check_modes(policy: Any, packed: Path) -> list[Any]:
    """Offline and in closed loop the policy gives whole modes; returns the offline trajectories."""
    bound = policy.robot()
    found = offline(bound, packed, split="train", progress=False).trajectories
    modes = np.concatenate([t.predicted[:, MODE] for t in found])
    assert set(np.unique(modes)) <= {0.0, 1.0, 2.0}
    benchmark = open_benchmark(bound.spec.benchmark | {"max_steps": 4}, bound.spec.cameras)
    results, _ = evaluate(bound, benchmark, benchmark.default_tasks(), 2, progress=False)
    assert len(results) == 2 and all("base_steps" in r.metrics for r in results)
    return found


def trained(packed: Path, tiny_run: dict[str, Any], steps: int, **optim: float) -> Any:
    settings = {"steps": steps, "val_every": steps, "save_every": steps}
    run = tiny_run | {
        "data": {"datasets": {"robot": str(packed)}, "sampling_weights": {"robot": 1.0}},
        "train": tiny_run["train"] | settings,
        "optim": tiny_run["optim"] | optim,
    }
    return load_policy(train(check(run, RunConfig, ""), False))


@pytest.mark.slow
def test_a_policy_learns_when_to_switch_the_mode(tmp_path: Path, tiny_run: dict[str, Any]) -> None:
    packed = tmp_path / "robot"
    pack(mobile_source(6), packed, 3, 0.0, progress=False)
    tiny_run["train"] = tiny_run["train"] | {"batch_size": 16}
    found = check_modes(trained(packed, tiny_run, steps=900, lr=2e-3), packed)
    predicted, recorded = (
        np.concatenate([getattr(t, name) for t in found]) for name in ("predicted", "recorded")
    )
    for mode in range(3):
        rows = recorded[:, MODE] == mode
        assert (predicted[rows, MODE] == mode).mean() > 0.8, mode
    base = recorded[:, MODE] == 1
    right = np.sign(predicted[base, BASE]) == np.sign(recorded[base, BASE])
    assert right[recorded[base, BASE] != 0].mean() > 0.8
