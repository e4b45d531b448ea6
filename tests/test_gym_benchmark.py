"""Any gymnasium environment with images as a benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from fake_policies import RecordingPolicy

from vla.benchmarks.image_env import ImageEnvironment
from vla.evaluation.rollout import evaluate, open_benchmark


class PlainEnv(gym.Env[Any, Any]):
    """One step long; its observation is an image, or a vector if the image is rendered."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}
    action_space = gym.spaces.Box(-1, 1, (3,), np.float32)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return (np.zeros(4) if self.render_mode else np.full((20, 30, 3), 7, np.uint8)), {}

    def render(self) -> Any:
        return np.full((20, 30, 3), 9, np.uint8)

    def step(self, action: Any) -> Any:
        return self.reset()[0], 0.0, True, False, {"is_success": True}


class DictEnv(PlainEnv):
    """Its observation has the form of ``Benchmark`` already."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        image = np.full((20, 30, 3), 5, np.uint8)
        return {"images": {"top": image}, "instruction": "open"}, {}


@pytest.fixture(autouse=True)
def environments() -> Iterator[None]:
    gym.register("Plain-v0", PlainEnv)
    gym.register("Dict-v0", DictEnv)
    yield
    for name in ("Plain-v0", "Dict-v0"):
        del gym.registry[name]


@pytest.mark.parametrize(
    ("config", "instruction", "grey"),
    [
        ({"id": "Plain-v0", "instruction": "wave"}, "wave", 7),
        ({"id": "Plain-v0", "options": {"render_mode": "rgb_array"}}, "", 9),
        ({"id": "Dict-v0"}, "open", 5),
    ],
    ids=["observed", "rendered", "dictionary"],
)
def test_images_are_found_in_the_observation_or_rendered(
    config: dict[str, Any], instruction: str, grey: int
) -> None:
    policy = RecordingPolicy()
    benchmark = open_benchmark({"name": "gym", **config}, policy.spec.cameras)
    results, videos = evaluate(policy, benchmark, benchmark.tasks(), 2, videos=1, progress=False)
    assert [(r.task, r.instruction, r.success) for r in results] == [
        (config["id"], instruction, True)
    ] * 2
    assert (
        int(videos[0][0].mean()) == grey and int(policy.calls[0].images[0, 0, 0, 0, 0, 0]) == grey
    )


def test_an_environment_without_images_is_refused() -> None:
    with pytest.raises(ValueError, match="no image in its observation"):
        ImageEnvironment(gym.make("CartPole-v1"), ("top",)).reset()
