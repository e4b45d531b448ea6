"""PushT's human demonstrations: the replay buffer of Diffusion Policy as published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, TINY_POLICY

from vla.config import check
from vla.data.mapping import Mapping
from vla.data.pack import pack_from
from vla.data.readers import open_reader
from vla.data.robot import RobotSource
from vla.evaluation.offline import offline
from vla.policies.checkpoint import load_policy
from vla.training.run import RunConfig, train

REAL = REPOSITORY.parent / "shared" / "realdata" / "pusht_human"
pytestmark = [
    pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is not here"),
    pytest.mark.filterwarnings("default"),  # Lightning's
]
TASK = "push the T-shaped block onto the target"


def test_pusht_is_read_as_recorded() -> None:
    source = RobotSource(str(REAL), Mapping(size=96, fps=10, instruction=TASK))
    reader = open_reader(REAL)
    assert len(source) == 206 and reader.notes == []
    lengths = [e.end - e.first for e in reader.episodes]  # type: ignore[attr-defined]
    assert sum(lengths) == 25650
    recording = reader[205]
    assert recording.steps == lengths[205]
    first, last = recording.frames["img"]([0, recording.steps - 1])
    assert first.shape == (96, 96, 3) and first.dtype == np.uint8 and first.max() == 255
    assert np.abs(first.astype(int) - last).mean() > 1
    # The agent follows its target: recorded actions and states are in one frame, in px.
    ahead = recording.numbers["action"][:-1] - recording.numbers["state"][1:, :2]
    assert np.abs(ahead).mean() < 40
    assert source[205].instruction == TASK


@pytest.mark.slow
def test_pusht_packs_trains_and_evaluates(tmp_path: Path) -> None:
    settings = [f"source.mapping.{o}" for o in ("fps=10", "size=32", f"instruction={TASK}")]
    manifest = pack_from(REAL, tmp_path / "packed", [*settings, "shard_size=20"])
    assert (manifest.samples, manifest.steps, manifest.quarantined) == (206, 25650, 0)
    run = {
        "policy": TINY_POLICY | {"head": {"name": "regression"}},
        "data": {
            "datasets": {"pusht": str(tmp_path / "packed")},
            "sampling_weights": {"pusht": 1.0},
            "window": {"horizon": 8, "cameras": ["img"]},
            "shuffle": 60,
        },
        "output_dir": str(tmp_path / "run"),
        "train": {
            "steps": 20,
            "batch_size": 8,
            "val_every": 20,
            "val_windows": 16,
        },
        "trainer": {"accelerator": "cpu"},
    }
    policy = load_policy(train(check(run, RunConfig, ""), progress=False)).robot()
    result = offline(policy, tmp_path / "packed", episodes=2, progress=False)
    assert np.isfinite(result.l1).all()
