"""Open-loop evaluation on recorded frames."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_policies import RecordingPolicy
from memory_data import MemorySource, make_episode
from PIL import Image

from vla.data.manifest import Manifest, load_manifest
from vla.data.pack import pack
from vla.errors import DataError
from vla.evaluation.offline import offline
from vla.evaluation.offline_report import plot, rows
from vla.models.actions.normalise import Normaliser


class MeanPolicy(RecordingPolicy):
    """Gives the mean recorded action for every observation."""

    def __init__(self, manifest: Manifest, **spec: Any) -> None:
        space = manifest.action_space
        assert space is not None
        super().__init__(space, image_size=(32, 32), statistics=manifest.statistics, **spec)
        self.normaliser = Normaliser(space, None)
        self.mean = np.array(manifest.statistics["actions"]["mean"], np.float32)

    def predict(self, images: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        chunks, plans = super().predict(images, *args, **kwargs)
        return np.broadcast_to(self.mean, chunks.shape).copy(), plans


def test_a_policy_that_gives_the_mean_has_the_error_of_the_mean(tiny_data: dict[str, str]) -> None:
    manifest = load_manifest(tiny_data["robot"])
    policy = MeanPolicy(manifest, horizon=3, history=2)
    result = offline(policy, tiny_data["robot"], progress=False)
    assert result.frames == sum(len(t.recorded) for t in result.trajectories) > 0
    assert np.allclose(result.l1, result.errors["mean action"], atol=1e-6)
    by_hand = np.concatenate([np.abs(policy.mean - t.recorded) for t in result.trajectories])
    assert np.allclose(result.l1, by_hand.mean(0), atol=1e-6)
    assert {tuple(c.images.shape[1:]) for c in policy.calls} == {(1, 2, 3, 32, 32)}
    moving = [n for n, still in zip(result.names, result.constant, strict=True) if not still]
    table = rows(result)
    assert [r["dim"] for r in table[:-1]] == [*moving, "mean, of range"]
    assert table[-1]["dim"] == "3 constant, not in the mean: droll, dpitch, dyaw"
    assert table[-2]["policy"] == table[-2]["mean action"]
    picture = Image.open(io.BytesIO(plot(result)))
    assert picture.format == "PNG" and np.asarray(picture).std() > 10
    train = offline(policy, tiny_data["robot"], split="train", episodes=2, progress=False)
    assert len(train.trajectories) == 2


def test_the_last_action_is_compared_over_whole_chunks(tiny_data: dict[str, str]) -> None:
    policy = MeanPolicy(load_manifest(tiny_data["robot"]), horizon=3)
    result = offline(policy, tiny_data["robot"], progress=False)
    differences = [
        np.abs((recorded[t - 1] if t else policy.mean) - recorded[t + k])
        for recorded in (t.recorded for t in result.trajectories)
        for t in range(len(recorded))
        for k in range(3)
        if t + k < len(recorded)
    ]
    assert np.allclose(result.errors["last action, chunk"], np.mean(differences, 0), atol=1e-6)
    assert "present state" not in result.errors  # these actions are not absolute targets


def test_constant_dimensions_share_a_row_and_are_not_in_the_mean(tmp_path: Path) -> None:
    episodes = [make_episode(i) for i in range(8)]
    for episode in episodes:
        episode.actions[:, 0] = 0.3
    pack(MemorySource(episodes), tmp_path / "packed", 2, 0.25, False)
    manifest = load_manifest(tmp_path / "packed")
    policy = MeanPolicy(manifest)
    policy.spec = replace(policy.spec, image_size=(16, 16))
    result = offline(policy, tmp_path / "packed", progress=False)
    assert result.constant.tolist() == [True, False]
    table = rows(result)
    labels = [r["dim"] for r in table]
    assert labels == ["b", "mean, of range", "1 constant, not in the mean: a"]
    assert table[1]["policy"] == f"{100 * result.l1_share[1]:.2f} %"
    assert float(table[2]["policy"]) < 1e-6
    # The same dimension in data where it has another value is an error that counts.
    shifted = replace_statistics(manifest, 0.2)
    policy = MeanPolicy(shifted)
    policy.spec = replace(policy.spec, image_size=(16, 16))
    result = offline(policy, tmp_path / "packed", progress=False)
    assert not result.constant.any() and result.l1[0] == pytest.approx(0.1)
    assert [r["dim"] for r in rows(result)] == ["a", "b", "mean, of range"]


def replace_statistics(manifest: Manifest, value: float) -> Manifest:
    """The manifest of data whose first action dimension always has this value."""
    figures = {
        name: [value, *numbers[1:]] if name in ("min", "max", "mean") else numbers
        for name, numbers in manifest.statistics["actions"].items()
    }
    return replace(manifest, statistics=manifest.statistics | {"actions": figures})


def test_the_number_of_parallel_episodes_changes_nothing(tiny_data: dict[str, str]) -> None:
    """Frames of an episode come in order and with the history of their own episode only."""
    manifest = load_manifest(tiny_data["robot"])

    class Brightness(MeanPolicy):
        def predict(self, images: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            chunks, plans = super().predict(images, *args, **kwargs)
            frames = images.float().mean((1, 3, 4, 5)).numpy() @ np.array([1.0, 3.0])
            return chunks + frames[:, None, None].astype(np.float32), plans

    one, many = (
        offline(Brightness(manifest, history=2), tiny_data["robot"], batch=b, progress=False)
        for b in (1, 4)
    )
    for a, b in zip(one.trajectories, many.trajectories, strict=True):
        assert a.key == b.key and np.allclose(a.predicted, b.predicted, atol=1e-4)


def test_data_of_another_robot_is_refused(tiny_data: dict[str, str]) -> None:
    policy = MeanPolicy(load_manifest(tiny_data["robot"]))
    policy.spec = RecordingPolicy().spec
    with pytest.raises(DataError, match=r"actions of 8 numbers, the policy gives 3"):
        offline(policy, tiny_data["robot"], progress=False)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    from robot_files import write_folder

    from vla.data.mapping import Mapping
    from vla.data.robot import RobotSource

    source = RobotSource(str(write_folder(tmp_path / "raw", (4,))), Mapping(size=32))
    pack(source, tmp_path / "packed", 1, 0.0, False)
    policy = MeanPolicy(load_manifest(tmp_path / "packed"))
    with pytest.raises(DataError, match="its val split is empty; draw another one"):
        offline(policy, tmp_path / "packed", progress=False)


def test_data_packed_with_another_fit_is_refused(tiny_data: dict[str, str]) -> None:
    policy = MeanPolicy(load_manifest(tiny_data["robot"]), image_fit="crop")
    with pytest.raises(DataError, match=r"packed with fit=stretch, .* fit=crop; pack it with"):
        offline(policy, tiny_data["robot"], progress=False)
