"""Closed loop and its statistics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla.contract import Contract
from vla.evaluate import PolicyActor, evaluate, rollouts, summary, to_images, wilson
from vla.film import save_films
from vla.sim.adapt import ImageEnvironment
from vla.sim.expert import expert_command
from vla.sim.layouts import LAYOUTS, to_action
from vla.sim.tabletop import Tabletop


class Still:
    """A policy that does nothing; ``seen`` records what it was shown."""

    def __init__(self, history: int = 1, horizon: int = 1) -> None:
        self.contract = Contract(LAYOUTS["rt2"], ("top",), (32, 32), history=history, horizon=horizon)
        self.seen: list[tuple[int, ...]] = []

    def holds_plan(self) -> bool:
        return False

    def predict(self, images: Any, instructions: Any) -> tuple[np.ndarray, list[str]]:
        self.seen.append(tuple(images.shape))
        return np.zeros((len(instructions), self.contract.horizon, 8), np.float32), [""] * len(instructions)


class Holds(Still):
    """Plans by counting; ``told`` records the plans of the step before that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def holds_plan(self) -> bool:
        return True

    def predict(self, images: Any, instructions: Any, before: Any = ()) -> tuple[np.ndarray, list[str]]:
        self.told += before
        return super().predict(images, instructions)[0], [str(len(self.told))] * len(instructions)


def test_a_policy_that_holds_plans_is_told_that_of_the_step_before_in_the_same_episode() -> None:
    policy = Holds()
    rollouts(PolicyActor(policy), lambda: Tabletop(size=32, step_limit=3), [0, 1], [None, None], batch=1, progress=False)
    assert policy.told == ["", "1", "2", "", "4", "5"]


class Expert(PolicyActor):
    """Looks into the environments instead of at the pictures: the upper bound of the harness."""

    def __init__(self, envs: list[Tabletop]) -> None:
        self.envs = envs

    def reset(self, slot: int) -> None: ...

    def __call__(self, slots: Any, observations: Any) -> np.ndarray:
        return np.stack([to_action("rt2", expert_command(self.envs[s].world, self.envs[s].task)) for s in slots])


def test_the_expert_scores_everything_and_a_still_policy_nothing(tmp_path: Path) -> None:
    envs: list[Tabletop] = []

    def make() -> Tabletop:
        envs.append(Tabletop(size=32))
        return envs[-1]

    results, films = rollouts(Expert(envs), make, list(range(20)), ["pick", "push"] * 10, batch=6, film=3, progress=False)
    assert all(r.success and r.terminated_rightly for r in results) and [r.seed for r in results] == list(range(20))
    assert [r.skill for r in results] == ["pick", "push"] * 10
    sheet, moving = save_films(films, results, tmp_path / "film")
    assert sheet.stat().st_size > 1000 and moving.read_bytes()[:4] == b"RIFF"
    out = tmp_path / "r.json"
    still, _ = evaluate(Still(), "vla/Tabletop-v0", {"size": 32}, 4, ["pick", "push"], out, progress=False)
    assert not any(r.success for r in still)
    saved = json.loads(out.read_text())
    assert len(saved["episodes"]) == 8 and saved["summary"]["all"]["success"] == 0.0 and saved["summary"]["all"]["high"] > 0


def test_seeds_are_paired_between_policies() -> None:
    a, _ = evaluate(Still(), "vla/Tabletop-v0", {"size": 32}, 3, ["pick"], progress=False, batch=2)
    b, _ = evaluate(Still(), "vla/Tabletop-v0", {"size": 32}, 3, ["pick"], progress=False, batch=3)
    assert [(r.seed, r.instruction) for r in a] == [(r.seed, r.instruction) for r in b]


def test_history_and_chunks_reach_the_policy() -> None:
    policy = Still(history=3, horizon=4)
    rollouts(PolicyActor(policy), lambda: Tabletop(size=32, step_limit=8), [0], [None], progress=False)
    assert policy.seen == [(1, 1, 3, 3, 32, 32)] * 2


def test_any_image_environment_can_be_driven() -> None:
    class Other(gym.Env[Any, Any]):
        action_space = gym.spaces.Box(-1, 1, (8,), np.float32)

        def reset(self, **kw: Any) -> Any:
            self.t = 0
            return {"images": {"top": np.zeros((20, 30, 3), np.uint8)}, "instruction": "wave"}, {}

        def step(self, action: Any) -> Any:
            self.t += 1
            return self.reset()[0] | {"t": self.t}, 0.0, True, False, {"success": True}

    gym.register("Other-v0", Other)
    results, _ = evaluate(Still(), "Other-v0", {}, 2, [], progress=False)
    assert [r.success for r in results] == [True, True]


def test_plain_image_observations_and_rendered_ones() -> None:
    class Plain(gym.Env[Any, Any]):
        metadata = {"render_modes": ["rgb_array"], "render_fps": 5}
        action_space = gym.spaces.Box(-1, 1, (8,), np.float32)

        def __init__(self, render_mode: str | None = None) -> None:
            self.render_mode = render_mode

        def reset(self, **kw: Any) -> Any:
            frame = np.full((20, 30, 3), 7, np.uint8)
            return (np.zeros(4) if self.render_mode else frame), {}

        def render(self) -> Any:
            return np.full((20, 30, 3), 9, np.uint8)

        def step(self, action: Any) -> Any:
            return self.reset()[0], 0.0, True, False, {"is_success": True}

    gym.register("Plain-v0", Plain)
    for options in ({"instruction": "wave"}, {"instruction": "wave", "render_mode": "rgb_array"}):
        results, films = evaluate(Still(), "Plain-v0", options, 2, [], film=1, progress=False)
        assert [r.instruction for r in results] == ["wave", "wave"] and results[0].success
        assert int(films[0][0].mean()) == (9 if "render_mode" in options else 7)
    with pytest.raises(ValueError, match="found 0 images"):
        ImageEnvironment(gym.make("CartPole-v1"), ("top",)).reset()


def test_wrong_cameras_and_widths_are_named() -> None:
    with pytest.raises(ValueError, match="needs camera 'wrist'; the environment shows top"):
        to_images([{"images": {"top": np.zeros((4, 4, 3), np.uint8)}}], ["wrist"])
    with pytest.raises(ValueError, match="takes 11 action numbers, the policy gives 8"):
        evaluate(Still(), "vla/Tabletop-v0", {"layout": "rt1"}, 1, [], progress=False)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_contains_the_estimate_and_stays_inside(pair: tuple[int, int]) -> None:
    low, high = wilson(*pair)
    assert 0.0 <= low <= pair[0] / pair[1] + 1e-12 and pair[0] / pair[1] - 1e-12 <= high <= 1.0


def test_wilson_known_value_and_empty() -> None:
    assert wilson(225, 250) == pytest.approx((0.8566, 0.9313), abs=2e-4)
    with pytest.raises(ValueError, match="n=0"):
        wilson(0, 0)
    assert summary([]) == {}


def test_recorded_actions_play_back_exactly_and_wrong_units_show(tmp_path: Path) -> None:
    from vla.data.manifest import DataError
    from vla.data.pack import pack
    from vla.data.sources import TabletopSource
    from vla.replay import replay, run_replay
    from vla.sim.scene import SceneConfig

    scene = SceneConfig(skills=("pick", "near"), cards=(0, 0), concepts=8)
    pack(TabletopSource(scene, 6, size=32, noise=0.0), tmp_path / "d", 6, 0.0, False)
    results, apart, _ = replay(tmp_path / "d", "vla/Tabletop-v0", {}, 6)
    assert all(r.success for r in results) and max(a for a in apart if a is not None) < 1e-5
    run_replay(tmp_path / "d", "vla/Tabletop-v0", 2, tmp_path / "out", [])
    assert len(json.loads((tmp_path / "out/results.json").read_text())["episodes"]) == 2
    with pytest.raises(DataError, match=r"8 action dims .* takes 11"):
        replay(tmp_path / "d", "vla/Tabletop-v0", {"layout": "rt1"}, 1)
