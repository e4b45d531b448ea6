"""PushT and BabyAI with their own packages; skipped where these are not installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from fake_policies import RecordingPolicy

from vla.benchmarks.base import Benchmark, EpisodeResult
from vla.benchmarks.recording import BenchmarkSource
from vla.config.yaml_files import read_yaml
from vla.data.mapping import Mapping
from vla.data.robot import RobotSource
from vla.evaluation.groups import comparison_rows, group_summary
from vla.evaluation.rollout import evaluate, open_benchmark
from vla.testing import check_benchmark
from vla.types import ActionSpace

REAL = REPOSITORY.parent / "shared" / "realdata" / "pusht_human" / "pusht_cchi_v7_replay.zarr"


def _compared(benchmark: Benchmark, result: EpisodeResult) -> list[dict[str, str]]:
    """The published rows, with this result as the last."""
    return comparison_rows(benchmark, group_summary(benchmark, [result]), "ours")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the packages
def test_babyai_records_its_bot_and_evaluates_choices(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("minigrid")
    benchmark = check_benchmark("babyai", levels=["GoToObj", "GoToLocal"])
    assert benchmark.action_space.integer == ("action_0",) and benchmark.action_space.high == (6.0,)
    results, _ = evaluate(None, benchmark, benchmark.tasks(), 5, progress=False)
    assert all(r.success and r.instruction.startswith("go to") for r in results)
    assert len({r.instruction for r in results}) > 3
    assert all(0.5 < r.metrics["return"] < 1 for r in results)
    episode = BenchmarkSource({"name": "babyai", "tile_size": 4}, 5)[3]
    assert episode.instruction.startswith("pick up") and episode.actions.shape[1] == 1
    policy = RecordingPolicy(benchmark.action_space, cameras=("image",), image_size=(56, 56))
    (result,), _ = evaluate(policy, benchmark, benchmark.tasks()[:1], 1, progress=False)
    assert not result.success and policy.calls[0].instructions == [result.instruction]
    assert "Sampling rejected" not in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the packages
def test_pusht_has_its_published_limits_and_scores() -> None:
    pytest.importorskip("gym_pusht")
    benchmark = check_benchmark("pusht")
    space = benchmark.action_space
    assert (space.low, space.high, space.rate_hz) == ((0.0, 0.0), (512.0, 512.0), 10.0)
    env = benchmark.make_env(benchmark.tasks()[0])
    observation, _ = env.reset(seed=1)
    assert observation["images"]["pixels"].shape == (96, 96, 3)
    assert observation["state"].shape == (2,)
    best = 0.0
    for _ in range(benchmark.max_steps):
        _, reward, terminated, truncated, info = env.step(np.array([256.0, 256.0]))
        best = max(best, reward)
    assert truncated and not terminated and not info["success"]
    assert info["score"] == best == pytest.approx(min(1.0, info["overlap"] / 0.95))
    policy = RecordingPolicy(
        ActionSpace(("x", "y"), ("px", "px"), (0.0, 0.0), (512.0, 512.0)),
        cameras=("pixels",),
        image_size=(96, 96),
        horizon=16,
        state_dim=2,
    )
    (result,), _ = evaluate(policy, benchmark, benchmark.tasks(), 1, progress=False)
    assert (result.steps, len(policy.calls)) == (300, 19)
    assert set(result.metrics) == {"score", "overlap"}
    assert benchmark.facts().keys() == {"gym-pusht", "pymunk"}
    assert [row["success"] for row in _compared(benchmark, result)] == [
        "64.2",
        "63.8",
        "65.4",
        "0.0",
    ]


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is not here")
def test_the_human_demonstrations_of_pusht_fit_the_benchmark() -> None:
    options = read_yaml(REPOSITORY / "configs/pack/pusht_human.yaml")["source"]["mapping"]
    source = RobotSource(str(REAL), Mapping(**options))
    assert len(source) == 206 and source.state_names == ("x", "y")
    assert source.action_space is not None and source.action_space.names == ("x", "y")
    episode = source[0]
    assert list(episode.images) == ["pixels"] and episode.fps == 10
    assert episode.state is not None and episode.state.min() >= 0 and episode.state.max() <= 512


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the packages
def test_a_third_party_environment_needs_no_code(tmp_path: Path) -> None:
    pytest.importorskip("minigrid")
    config = {
        "name": "gym",
        "id": "minigrid:MiniGrid-Empty-5x5-v0",
        "pixels": "render",
        "success_reward": 0.01,
    }
    benchmark = open_benchmark(config, ("image",))
    policy = RecordingPolicy(benchmark.action_space, cameras=("image",), image_size=(64, 64))
    (result,), _ = evaluate(policy, benchmark, benchmark.tasks(), 1, progress=False)
    assert result.instruction == "get to the green goal square" and not result.success
    images = policy.calls[0].images
    assert images.shape[-2:] == (64, 64) and float(images.float().std()) > 10
