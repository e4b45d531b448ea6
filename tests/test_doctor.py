"""``vla doctor`` finds each planted defect, and none in the unchanged data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image

from vla.data.pack import pack_from
from vla.data.splits import resplit
from vla.doctor.checks import examine
from vla.doctor.findings import Summary
from vla.doctor.policy_fit import compare
from vla.doctor.report import run_doctor
from vla.doctor.signals import image_motion
from vla.doctor.views import DatasetView, EpisodeView, open_dataset
from vla.policies.spec import RobotSpec
from vla.types import ActionSpace
from vla.utils.io import write_json

STEPS = 40


def write_clean(root: Path, episodes: int = 12) -> Path:
    """A square that moves: the state is its position, an action its next movement."""
    rng = np.random.default_rng(0)
    for e in range(episodes):
        folder = root / f"e{e:02d}"
        (folder / "top").mkdir(parents=True)
        speed = (
            np.repeat(rng.normal(size=(STEPS // 4, 2)), 4, 0) * 0.02
            + rng.normal(size=(STEPS, 2)) * 0.004
        )
        state = np.cumsum(np.vstack([[[0.5, 0.5]], speed[:-1]]), 0)
        for t in range(STEPS):
            image = np.full((32, 32, 3), 230, np.uint8)
            x, y = (np.clip(state[t], 0, 1) * 24).astype(int)
            image[y : y + 8, x : x + 8] = 30
            Image.fromarray(image).save(folder / "top" / f"{t:03d}.png")
        grip = (np.arange(STEPS) > STEPS // 2).astype(float)
        write_steps(folder, np.hstack([speed, grip[:, None]]), state)
        (folder / "instruction.txt").write_text(
            ["push the block", "close the drawer", "lift the cup"][e % 3]
        )
    write_json(root / "meta.json", {"fps": 10, "robot": "toy"})
    return root


def write_steps(folder: Path, actions: np.ndarray, state: np.ndarray) -> None:
    np.savez(
        folder / "steps.npz", action=actions, state=state, timestamp=np.arange(len(actions)) / 10
    )


def edit(
    root: Path,
    change: Callable[[np.ndarray, np.ndarray, np.ndarray], Any],
    episodes: slice = slice(None),
) -> None:
    for folder in sorted(root.glob("e*"))[episodes]:
        with np.load(folder / "steps.npz") as arrays:
            arrays_now = [
                arrays["action"].copy(),
                arrays["state"].copy(),
                arrays["timestamp"].copy(),
            ]
        made = change(*arrays_now)
        action, state, times = made if made is not None else arrays_now
        np.savez(folder / "steps.npz", action=action, state=state, timestamp=times)


def _dead(a: np.ndarray, s: np.ndarray, t: np.ndarray) -> None:
    a[:, 0] = 0.25


def _outlier(a: np.ndarray, s: np.ndarray, t: np.ndarray) -> None:
    a[3, 1] = 500.0


def _clip(a: np.ndarray, s: np.ndarray, t: np.ndarray) -> None:
    np.clip(a[:, 0], -0.01, 0.01, out=a[:, 0])


def _hole(a: np.ndarray, s: np.ndarray, t: np.ndarray) -> None:
    t[20:] += 0.5


def _jitter(a: np.ndarray, s: np.ndarray, t: np.ndarray) -> None:
    t += np.tile([0.0, 0.03], len(t) // 2)


def _idle(a: np.ndarray, s: np.ndarray, t: np.ndarray) -> Any:
    return (np.repeat(a, 2, 0)[: len(a)] * 0, np.vstack([s[:20], np.repeat(s[20:21], 20, 0)]), t)


def _nan(a: np.ndarray, s: np.ndarray, t: np.ndarray) -> None:
    a[5, 1] = np.nan


def _late(a: np.ndarray, s: np.ndarray, t: np.ndarray) -> Any:
    return np.roll(a, -6, 0), s, t


def _copy(root: Path) -> None:
    shutil.copy(root / "e00/steps.npz", root / "e05/steps.npz")


def _misaligned(root: Path) -> None:
    for folder in root.glob("e*"):
        files = sorted((folder / "top").glob("*.png"))
        data = [f.read_bytes() for f in files]
        for f, content in zip(files, data[-6:] + data[:-6], strict=True):
            f.write_bytes(content)


def _frozen(root: Path) -> None:
    files = sorted((root / "e03/top").glob("*.png"))
    for f in files:
        f.write_bytes(files[0].read_bytes())


DEFECTS: dict[str, Callable[[Path], Any]] = {
    "constant dimension": lambda r: edit(r, _dead),
    "near-constant dimension": lambda r: edit(r, _outlier, slice(1)),
    "clipped dimension": lambda r: edit(r, _clip),
    "timestamp gaps": lambda r: edit(r, _hole, slice(1)),
    "timestamp jitter": lambda r: edit(r, _jitter),
    "idle rows": lambda r: edit(r, _idle, slice(2, 6)),
    "NaN or infinite values": lambda r: edit(r, _nan, slice(1)),
    "action-state lag": lambda r: edit(r, _late),
    "video misaligned": _misaligned,
    "frozen images": _frozen,
    "duplicate episodes": _copy,
    "empty instruction": lambda r: (r / "e01/instruction.txt").write_text(" "),
    "unreadable episode": lambda r: (r / "e02/top/007.png").unlink(),
}


def checks_of(root: Path) -> list[str]:
    return [f.check for f in examine(open_dataset(root))[1]]


def test_unchanged_data_has_no_defects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_clean(tmp_path / "d")
    assert checks_of(root) == ["possibly binary dimension"]  # the gripper
    assert run_doctor(root, ["source.mapping.size=32"], None, False, tmp_path / "page.html") == 0
    assert "mapping.binary" in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg") == 8 * 8 and page.count("data:image/png") == 3
    assert "camera top" in page and "row 0, 0.0 s" in page and "lift the cup" in page
    assert page.index("possibly binary") < page.index("Frames")
    pack_from(root, tmp_path / "packed", ["source.mapping.size=32", "shard_size=2"])
    assert checks_of(tmp_path / "packed") == ["possibly binary dimension"]
    pack_from(
        root, tmp_path / "binary", ["source.mapping.size=32", "source.mapping.binary.action_2=0.5"]
    )
    assert checks_of(tmp_path / "binary") == []


@pytest.mark.parametrize("defect", DEFECTS)
def test_planted_defects_are_found(
    defect: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_clean(tmp_path / "d")
    DEFECTS[defect](root)
    assert defect in checks_of(root)
    assert run_doctor(root, [], None, True, None) in (1, 2)
    assert defect in [f["check"] for f in json.loads(capsys.readouterr().out)["findings"]]


def test_leakage_between_splits_is_found(tmp_path: Path) -> None:
    root = write_clean(tmp_path / "d")
    shutil.copytree(root / "e00", root / "e12")
    shutil.copytree(root / "e01", root / "e13")
    pack_from(root, tmp_path / "p", ["shard_size=2", "val_fraction=0.1"])
    (tmp_path / "keys.txt").write_text("e12\ne13\n")
    resplit(tmp_path / "p", val_keys=tmp_path / "keys.txt")
    assert "train-validation leakage" in checks_of(tmp_path / "p")


def test_statistics_of_a_policy_are_compared(tmp_path: Path) -> None:
    root = write_clean(tmp_path / "d")
    manifest = pack_from(root, tmp_path / "p", ["source.mapping.size=32"])
    dataset = open_dataset(tmp_path / "p")
    summary, _ = examine(dataset)
    space = manifest.action_space
    for factor, expected in (
        (1.0, []),
        (0.3, ["outside the policy's range"] * 2),
        (20.0, ["small part of the policy's range"] * 2),
    ):
        statistics = {
            k: [factor * v for v in manifest.statistics["actions"][k][:2]]
            + [0.0 if k == "q01" else 1.0]
            for k in ("q01", "q99")
        }
        spec = RobotSpec(space, ("top",), (32, 32), statistics={"actions": statistics})
        write_json(tmp_path / "policy/robot_spec.json", {"robots": {"toy": spec.to_dict()}})
        assert [
            f.check
            for f in compare(dataset, summary, tmp_path / "policy")
            if "action_2" not in f.affected
        ] == expected


@pytest.mark.skipif(
    not (REPOSITORY.parent / "shared/realdata").is_dir(), reason="no real data here"
)
@pytest.mark.slow
def test_real_data_is_read() -> None:
    found = checks_of(REPOSITORY.parent / "shared/realdata/g1_lerobot21")
    assert "unreadable episode" in found and "single instruction" in found


@pytest.mark.parametrize(("rows", "found"), [(0, []), (6, ["video misaligned"])])
def test_a_trend_of_the_speed_is_no_shift_of_the_video(rows: int, found: list[str]) -> None:
    rng, episodes, motion = np.random.default_rng(0), [], {}
    for e in range(6):  # the images change most 12 rows after the state
        jitter, t = rng.random(79), np.arange(79)
        speed = np.exp(-(((t - 30) / 10) ** 2)) + 0.3 * jitter
        state = np.cumsum(np.append(0.0, speed))[:, None]
        images = np.exp(-(((t - 42) / 10) ** 2)) + 0.3 * np.roll(jitter, rows)
        view = EpisodeView(str(e), "go", 10.0, state, state, None, ("top",), lambda c, r: [])
        episodes.append(view)
        motion[view.key] = images
    dataset = DatasetView("d", ActionSpace(("x",), ("m",), (0.0,), (99.0,)), lambda: iter(episodes))
    findings = image_motion(dataset, Summary(episodes, motion))
    assert [f.check for f in findings] == found
