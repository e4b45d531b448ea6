"""The server, ``act``, the runner and offline evaluation give the same actions."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policies import make_policy

pytest.importorskip("starlette")
from vla.data.images import decode_image
from vla.data.packed import iter_samples
from vla.data.samples import read_frame, read_json
from vla.evaluation.offline import offline
from vla.serve.answers import answers

RNG = np.random.default_rng(0)


def raw(height: int = 48, width: int = 64) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("head", "fit"), [("token", "crop"), ("regression", "stretch"), ("regression", "pad")]
)
def test_every_way_to_use_a_policy_gives_the_same_actions(head: str, fit: Any) -> None:
    policy = make_policy({"name": head}, horizon=2, cameras=("front", "wrist")).robot()
    policy.spec.image_fit = fit
    images = {"wrist": raw(), "front": raw(50, 40)}
    found = answers(policy, {"images": images, "instruction": "pick the banana"})
    assert set(found) == {"PolicyRunner", "openpi", "act", "OpenVLA"}
    for name, actions in found.items():
        assert actions.shape == (2, 8) and np.array_equal(actions, found["act"]), name


def test_the_fit_changes_the_actions_and_the_history_is_respected() -> None:
    observation = {"images": {"top": raw()}, "instruction": "pick the banana"}
    chunks = []
    for fit in ("stretch", "crop", "pad"):
        policy = make_policy({"name": "regression"}).robot()
        policy.spec.image_fit = fit
        chunks.append(answers(policy, observation)["openpi"])
    assert not np.array_equal(chunks[0], chunks[1]) and not np.array_equal(chunks[0], chunks[2])


def test_offline_evaluation_gives_the_actions_of_the_server(tiny_data: dict[str, str]) -> None:
    policy, data = make_policy({"name": "regression"}).robot(), Path(tiny_data["robot"])
    policy.spec.statistics["actions"] = {"mean": [0.0] * 8}
    result = offline(policy, data, episodes=1, batch=1, progress=False)
    (sample,) = islice(iter_samples(data, "val"), 1)
    meta, episode = read_json(sample), result.trajectories[0]
    assert episode.key == sample["__key__"]
    for t in (0, len(episode.predicted) - 1):
        image = decode_image(read_frame(sample, meta, "top", t), "top")
        found = answers(policy, {"images": {"top": image}, "instruction": meta["instruction"]})
        for name, actions in found.items():
            assert np.array_equal(actions[0], episode.predicted[t]), name
