"""A package that is installed beside this one adds a vision encoder and a benchmark."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import vla

ENCODER = '''
import torch
from torch import nn
from vla import register


@register("vision", "patches")
class Patches(nn.Module):
    """Linear embeddings of square patches."""

    def __init__(self, side: int = 8, width: int = 16) -> None:
        super().__init__()
        self.width = width
        self.project = nn.Conv2d(3, width, side, side)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) uint8 to (B, N, D)."""
        return self.project(images_BCHW.float() / 255).flatten(2).transpose(1, 2)
'''
BENCHMARK = '''
import gymnasium as gym
import numpy as np
from vla import ActionSpace, Benchmark, register
from vla.benchmarks.base import Task


class Reach(gym.Env):
    """Move a white dot to the middle of the image."""

    observation_space = gym.spaces.Dict()
    action_space = gym.spaces.Box(-1, 1, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.dot = self.np_random.uniform(4, 28, 2)
        return self._observe(), {}

    def step(self, action):
        self.dot = np.clip(self.dot + action, 0, 31)
        success = bool(np.abs(self.dot - 16).max() < 2)
        return self._observe(), float(success), success, False, {"success": success}

    def _observe(self):
        image = np.zeros((32, 32, 3), np.uint8)
        image[tuple(self.dot.astype(int))] = 255
        return {"images": {"top": image}, "instruction": "move the dot to the middle"}


@register("benchmark", "reach")
class ReachBenchmark(Benchmark):
    """A white dot that moves in the image plane."""

    name = "reach"

    def __init__(self, max_steps: int = 20) -> None:
        self.max_steps = max_steps

    @property
    def action_space(self) -> ActionSpace:
        return ActionSpace(("x", "y"), ("px", "px"), (-1.0, -1.0), (1.0, 1.0))

    def tasks(self) -> list[Task]:
        return [Task("reach", "move the dot to the middle")]

    def make_env(self, task: Task) -> gym.Env:
        return gym.wrappers.TimeLimit(Reach(), self.max_steps)
'''


def install(folder: Path, package: str, code: dict[str, str]) -> Path:
    """A pure Python package as pip installs it: modules, metadata and the entry point."""
    modules, info = folder / package, folder / f"{package}-1.0.dist-info"
    modules.mkdir(parents=True)
    info.mkdir()
    imports = "".join(f"import {package}.{name}\n" for name in code)
    for name, text in {"__init__": "", "plugin": imports, **code}.items():
        (modules / f"{name}.py").write_text(text)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[vla.plugins]\n{package} = {package}.plugin\n")
    return folder


def python(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A new interpreter that finds this checkout and the packages in ``site``."""
    root = str(Path(vla.__file__).parent.parent)
    path = os.pathsep.join([str(site), root, os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    return install(folder, "robot_lab", {"encoder": ENCODER, "reach": BENCHMARK})


@pytest.mark.slow
def test_a_plugin_is_listed_by_vla_zoo(site: Path) -> None:
    done = python(site, "-m", "vla", "zoo", "--json")
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    encoders, benchmarks = (listed[slot]["components"] for slot in ("vision", "benchmark"))
    assert encoders["patches"] == "Linear embeddings of square patches."
    assert benchmarks["reach"] == "A white dot that moves in the image plane."


@pytest.mark.slow
def test_a_plugin_is_used_from_yaml_in_training(
    site: Path, tiny_run: dict[str, Any], tmp_path: Path
) -> None:
    vision = {"name": "patches", "side": 16}
    run = tiny_run | {"policy": tiny_run["policy"] | {"vision": vision}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    steps = ["train.steps=2", "train.val_every=2"]
    done = python(site, "-m", "vla", "train", str(tmp_path / "run.yaml"), *steps)
    assert done.returncode == 0, done.stderr
    saved = yaml.safe_load((tmp_path / "run" / "policy" / "policy.yaml").read_text())
    assert saved["vision"] == vision


@pytest.mark.slow
def test_the_checks_of_vla_testing_pass_for_a_plugin_and_find_its_mistakes(site: Path) -> None:
    code = """
import numpy as np
from vla.testing import check_benchmark, check_component
from robot_lab.encoder import Patches
from robot_lab.reach import Reach
check_component("vision", "patches", side=16)
assert check_benchmark("reach").max_steps == 20

def fails(check, *arguments):
    try:
        check(*arguments)
    except AssertionError as error:
        print(error)

forward = Patches.forward
Patches.forward = lambda self, images: forward(self, images).detach()
fails(check_component, "vision", "patches")
Patches.forward = lambda self, images: forward(self, images) * float("nan")
fails(check_component, "vision", "patches")
observe, reset = Reach._observe, Reach.reset
Reach._observe = lambda self: {**observe(self), "images": {"top": np.zeros((32, 32, 3))}}
fails(check_benchmark, "reach")
Reach._observe = observe
Reach.reset = lambda self, seed=None, options=None: reset(self)
fails(check_benchmark, "reach")
"""
    done = python(site, "-c", code)
    assert done.returncode == 0, done.stderr
    *messages, last = done.stdout.splitlines()
    assert messages == [
        "no gradient reaches the vision",
        "step 0: the loss is nan",
        "reach: camera 'top' is not (H, W, 3) uint8",
    ]
    assert last.startswith("reach: the same seed gives another observation at step")


@pytest.mark.slow
def test_a_broken_plugin_is_one_clear_line(tmp_path: Path) -> None:
    site = install(tmp_path / "site", "broken_lab", {"head": "raise RuntimeError('no licence')"})
    done = python(site, "-m", "vla", "zoo")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: plug-in 'broken_lab' (broken_lab.plugin): RuntimeError: no licence; "
        "repair or uninstall the package that has it"
    ]
