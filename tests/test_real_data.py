"""Published LeRobot and RLDS data sets: read as recorded; packed, trained and evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY, TINY_POLICY

from vla.config import check
from vla.data.mapping import Mapping
from vla.data.pack import pack_from
from vla.data.robot import RobotSource
from vla.doctor.report import run_doctor
from vla.evaluation.offline import offline
from vla.policies.checkpoint import load_policy
from vla.training.run import RunConfig, train

REAL = REPOSITORY.parent / "shared" / "realdata"
pytestmark = [
    pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is not here"),
    pytest.mark.filterwarnings("default"),  # Lightning's
]
GR00T = "gr00t_n1_pickplace"


def test_the_gr00t_demonstrations_are_read_with_both_peculiarities() -> None:
    source = RobotSource(str(REAL / GR00T), Mapping(size=64, image_format="ppm", rate_hz=1))
    assert len(source) == 5 and source.action_space is not None
    assert source.action_space.dim == 44 and source.action_space.names[0] == "left_arm_0"
    assert source.mapping.cameras == {"ego_view": "observation.images.ego_view"}
    assert "'observation.images.egoview' is declared, but has no files" in source.notes[0]
    assert "constant offset of 0.050 s" in source.notes[1]
    reader = source.reader
    for index, steps in ((0, 416), (4, 328)):
        recording = reader[index]
        assert recording.steps == steps and recording.numbers["action"].shape == (steps, 44)
    rows = [0, 1, steps - 1]
    first, second, last = recording.frames["observation.images.ego_view"](rows)
    assert first.shape == (256, 256, 3)
    assert 0 < np.abs(first.astype(int) - second).mean() < np.abs(first.astype(int) - last).mean()
    episode = source[4]
    assert episode.instruction.startswith("pick the spray") and len(episode.actions) == 17


SETS: dict[str, tuple[str, list[str], bool, tuple[int, int]]] = {
    "gr00t": (GR00T, ["rate_hz=2"], False, (5, 211)),
    "g1": ("g1_lerobot21", ["rate_hz=1"], True, (8, 80)),
    "lerobot3_image": ("lerobot3_written/image", [], False, (4, 64)),
    "lerobot3_video": ("lerobot3_written/video", [], False, (4, 64)),
    "bridge": ("bridge_rlds", ["fps=5"], False, (25, 250)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_real_sets_pack_train_and_evaluate(name: str, tmp_path: Path) -> None:
    folder, mapping, skip_missing, expected = SETS[name]
    settings = [f"source.mapping.{o}" for o in ("size=32", *mapping)]
    settings += ["shard_size=4", "val_fraction=0.25"]
    manifest = pack_from(REAL / folder, tmp_path / "d", settings, skip_missing=skip_missing)
    assert (manifest.samples, manifest.steps, manifest.quarantined) == (*expected, 0)
    run: dict[str, Any] = {
        "policy": TINY_POLICY | {"head": {"name": "regression"}},
        "data": {
            "datasets": {"robot": str(tmp_path / "d")},
            "sampling_weights": {"robot": 1.0},
            "window": {"horizon": 4, "cameras": []},
            "shuffle": 60,
        },
        "output_dir": str(tmp_path / "run"),
        "train": {
            "steps": 20,
            "batch_size": 8,
            "val_every": 20,
            "val_windows": 8,
        },
        "trainer": {"accelerator": "cpu"},
    }
    policy = load_policy(train(check(run, RunConfig, ""), progress=False))
    result = offline(policy.robot("robot"), tmp_path / "d", episodes=2, progress=False)
    assert np.isfinite(result.l1).all() and len(result.l1) == manifest.action_space.dim


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_the_doctor_examines_real_sets(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder, mapping, _, _ = SETS[name]
    options = [f"source.mapping.{o}" for o in mapping]
    assert run_doctor(REAL / folder, options, None, False, None) in (0, 1, 2)
    assert "Traceback" not in capsys.readouterr().err
