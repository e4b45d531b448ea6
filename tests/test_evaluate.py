"""Closed-loop evaluation, its statistics, and replay of recorded actions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from fake_policies import RecordingPolicy
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from vla.benchmarks.base import Benchmark, EpisodeResult, Task
from vla.benchmarks.tabletop.layouts import LAYOUTS
from vla.errors import ConfigError, DataError
from vla.evaluation.replay import replay, run_replay
from vla.evaluation.results import read_results
from vla.evaluation.rollout import SEED, evaluate, open_benchmark, rollouts
from vla.evaluation.run import shuffled_instructions
from vla.evaluation.statistics import mcnemar, summary, wilson
from vla.evaluation.video import save_videos
from vla.inference.runner import PolicyRunner
from vla.policies.bound import ReplacedInstructions
from vla.types import ActionSpace


def tabletop(**options: Any) -> Benchmark:
    return open_benchmark({"name": "tabletop", "size": 32, **options})


def still_policy(**spec: Any) -> RecordingPolicy:
    return RecordingPolicy(LAYOUTS["rt2"], image_size=(32, 32), **spec)


class Countdown(Benchmark):
    """An episode of task "n" ends successfully after seed % 5 + n steps; images show the steps."""

    name = "countdown"
    metrics = ("seconds",)
    action_space = ActionSpace(("x", "y", "grip"), ("m", "m", ""), (-1,) * 3, (1,) * 3)

    def __init__(self) -> None:
        self.opened: list[str] = []

    def tasks(self) -> list[Task]:
        return [Task("1", "wait", "short"), Task("4", "wait longer", "long")]

    def make_env(self, task: Task) -> gym.Env[Any, Any]:
        self.opened.append(task.id)
        return _CountdownEnv(int(task.id), task.instruction)


class _CountdownEnv(gym.Env[Any, Any]):
    def __init__(self, extra: int, instruction: str) -> None:
        self.extra, self.instruction = extra, instruction

    def _observe(self) -> dict[str, Any]:
        image = np.full((8, 8, 3), self.steps, np.uint8)
        return {"images": {"top": image}, "instruction": self.instruction}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        assert seed is not None
        self.steps, self.length = 0, seed % 5 + self.extra
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        done = self.steps == self.length
        return self._observe(), 0.0, done, False, {"success": done, "seconds": self.steps / 5}


class Expert:
    """Acts with the benchmark's scripted expert: the upper bound of the benchmark."""

    def __init__(self, benchmark: Benchmark) -> None:
        self.envs: dict[int, gym.Env[Any, Any]] = {}
        make_env = benchmark.make_env
        expert = benchmark.expert(benchmark.tasks()[0])
        assert expert is not None
        self.expert, self.key = expert, 0

        def remember(task: Task) -> gym.Env[Any, Any]:
            self.envs[self.key] = make_env(task)
            return self.envs[self.key]

        benchmark.make_env = remember  # type: ignore[method-assign]

    def reset(self, key: int) -> None:
        self.key = key

    def looks(self, key: int) -> bool:
        return True

    def act(self, keys: Sequence[int], observations: Sequence[Any]) -> np.ndarray:
        return np.stack(
            [self.expert(self.envs[k], o) for k, o in zip(keys, observations, strict=True)]
        )


@pytest.mark.parametrize("num_envs", [1, 3, 50])
def test_results_do_not_depend_on_the_number_of_parallel_environments(num_envs: int) -> None:
    benchmark = Countdown()
    tasks = [task for task in benchmark.tasks() for _ in range(4)]
    seeds = [3, 0, 4, 1, 2, 3, 0, 1]
    actor = PolicyRunner(RecordingPolicy(history=2))  # type: ignore[arg-type]
    results, videos = rollouts(actor, benchmark, tasks, seeds, num_envs, 2, progress=False)
    assert [(r.task, r.seed) for r in results] == [
        (t.id, s) for t, s in zip(tasks, seeds, strict=True)
    ]
    assert [r.steps for r in results] == [s + int(t.id) for t, s in zip(tasks, seeds, strict=True)]
    assert all(r.success for r in results)
    assert results[0].instruction == "wait" and results[0].metrics == {"seconds": 4 / 5}
    assert [[int(f[0, 0, 0]) for f in v] for v in videos] == [[0, 1, 2, 3, 4], [0, 1]]
    assert len(benchmark.opened) == {1: 2, 3: 6, 50: 8}[num_envs]  # reused for the same task


def test_a_new_episode_in_a_slot_starts_without_the_history_of_the_last() -> None:
    policy = RecordingPolicy(history=2, plans=True)
    task = Countdown().tasks()[0]
    runner = PolicyRunner(policy)  # type: ignore[arg-type]
    rollouts(runner, Countdown(), [task] * 2, [1, 1], num_envs=1, progress=False)
    frames = [c.images[0, 0, :, 0, 0, 0].tolist() for c in policy.calls]
    assert frames == [[0, 0], [0, 1], [0, 0], [0, 1]]
    assert [c.previous_plans for c in policy.calls] == [[""], ["1"], [""], ["3"]]


def test_evaluate_pairs_seeds_and_writes_results(tmp_path: Path) -> None:
    benchmark, path = Countdown(), tmp_path / "results.json"
    results, _ = evaluate(RecordingPolicy(), benchmark, benchmark.tasks(), 3, path, progress=False)
    assert [r.seed - SEED for r in results] == [0, 0, 1, 1, 2, 2]
    assert read_results(path) == results
    saved = json.loads(path.read_text())
    assert saved["benchmark"] == "countdown" and saved["summary"] == summary(results)
    assert saved["summary"]["all"]["n"] == 6
    (tmp_path / "other.json").write_text("{}")
    for name in ("other.json", "missing.json"):
        with pytest.raises(DataError, match=rf"{name}: not the results of `vla eval`"):
            read_results(tmp_path / name)


def test_the_expert_solves_every_episode_and_a_policy_that_stands_still_none(
    tmp_path: Path,
) -> None:
    benchmark = tabletop()
    tasks = benchmark.select(["pick", "push"]) * 10
    actor = Expert(benchmark)
    results, videos = rollouts(
        actor, benchmark, tasks, list(range(20)), num_envs=6, videos=3, progress=False
    )
    assert all(r.success and r.metrics["correct_termination"] for r in results)
    sheet, moving = save_videos(videos, results, tmp_path / "rollouts")
    assert sheet.stat().st_size > 1000 and moving.read_bytes()[:4] == b"RIFF"
    benchmark = tabletop()
    tasks = benchmark.select(["pick", "push"])
    results, _ = evaluate(still_policy(), benchmark, tasks, 4, progress=False)
    assert len(results) == 8 and not any(r.success for r in results)
    assert summary(results)["all"]["success"] == 0 < summary(results)["all"]["high"]


def test_policies_see_the_same_episodes() -> None:
    task = tabletop().select(["pick"])
    one, other = (
        evaluate(still_policy(), tabletop(max_steps=4), task, 3, num_envs=n, progress=False)[0]
        for n in (2, 3)
    )
    assert [(r.seed, r.instruction) for r in one] == [(r.seed, r.instruction) for r in other]
    assert len({r.instruction for r in one}) > 1


def test_history_and_chunks_reach_the_policy() -> None:
    policy, benchmark = still_policy(history=3, horizon=4), tabletop(max_steps=8)
    evaluate(policy, benchmark, benchmark.select(["pick"]), 1, progress=False)
    assert [c.images.shape for c in policy.calls] == [(1, 1, 3, 3, 32, 32)] * 2


def test_the_policy_and_the_benchmark_must_have_the_same_action_dimensions() -> None:
    benchmark = tabletop(layout="rt1")
    with pytest.raises(ValueError, match=r"takes 11 action numbers .*, the policy gives 8"):
        evaluate(still_policy(), benchmark, benchmark.default_tasks(), 1, progress=False)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_contains_the_share_and_stays_between_0_and_1(
    pair: tuple[int, int],
) -> None:
    low, high = wilson(*pair)
    assert 0.0 <= low <= pair[0] / pair[1] + 1e-12
    assert pair[0] / pair[1] - 1e-12 <= high <= 1.0


def test_wilson_known_value_and_empty() -> None:
    assert wilson(225, 250) == pytest.approx((0.8566, 0.9313), abs=2e-4)
    with pytest.raises(ValueError, match="n=0"):
        wilson(0, 0)
    assert summary([]) == {}


def _results(outcomes: Sequence[bool]) -> list[EpisodeResult]:
    return [EpisodeResult("t", n, "go", success, 1) for n, success in enumerate(outcomes)]


def test_mcnemar_counts_pairs_in_which_one_policy_succeeds() -> None:
    ours, theirs = _results([1, 1, 1, 1, 0, 1]), _results([0, 0, 0, 1, 1, 1])
    test = mcnemar(ours, theirs)
    assert (test["n"], test["only_ours"], test["only_theirs"]) == (6, 3, 1)
    assert test["p"] == pytest.approx(binomtest(3, 4).pvalue) == pytest.approx(0.625)
    assert mcnemar(ours, ours)["p"] == 1.0
    with pytest.raises(DataError, match="different episodes"):
        mcnemar(ours, theirs[:5])


def test_recorded_actions_repeat_the_recorded_episode(tmp_path: Path) -> None:
    from vla.benchmarks.tabletop.scene import SceneConfig
    from vla.benchmarks.tabletop.sources import TabletopSource
    from vla.data.pack import pack

    scene = SceneConfig(skills=("pick", "near"), cards=(0, 0), concepts=8)
    pack(TabletopSource(scene, 6, size=32, noise=0.0), tmp_path / "d", 6, 0.0, False)
    results, differences, _ = replay(tmp_path / "d", {}, 6)
    assert all(r.success for r in results)
    assert max(d for d in differences if d is not None) < 1e-5
    run_replay(tmp_path / "d", {}, 2, tmp_path / "out")
    assert len(json.loads((tmp_path / "out/results.json").read_text())["episodes"]) == 2
    with pytest.raises(DataError, match=r"takes 11 action numbers .* gives 8"):
        replay(tmp_path / "d", {"name": "tabletop", "layout": "rt1"}, 1)


def test_shuffled_instructions_give_every_task_the_text_of_another() -> None:
    texts = shuffled_instructions(Countdown(), SEED)
    assert texts == {"wait": "wait longer", "wait longer": "wait"}
    policy = RecordingPolicy(Countdown.action_space, cameras=("top",), image_size=(8, 8))
    shuffled = ReplacedInstructions(policy, texts)
    results, _ = evaluate(shuffled, Countdown(), Countdown().tasks()[:1], 1, progress=False)
    assert results[0].instruction == "wait" and policy.calls[0].instructions == ["wait longer"]
    with pytest.raises(ConfigError, match="needs at least two tasks with fixed instructions"):
        shuffled_instructions(tabletop(), SEED)
