"""vla-eval's own runner evaluates a served policy in its own LIBERO module, without Docker.

It needs an interpreter with vla-eval and LIBERO: VLA_PYTHON_VLA_EVAL=/path/to/python.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("starlette")
from conftest import TINY_POLICY
from policies import HEADS, WORDS, build_policy
from server_processes import served

from vla.models.decoders.tokenizer import train_tokenizer
from vla.policies.checkpoint import save_policy
from vla.policies.spec import RobotSpec
from vla.types import ActionSpace

LIBERO = ActionSpace(
    ("x", "y", "z", "rx", "ry", "rz", "gripper"),
    ("5 cm",) * 3 + ("0.5 rad",) * 3 + ("closed",),
    (-1.0,) * 7,
    (1.0,) * 7,
    rate_hz=20.0,
    relative=("x", "y", "z", "rx", "ry", "rz"),
    absolute=("gripper",),
    rotation="axis_angle",
)
STEPS = 6
EVALUATION = """
server: {url: "ws://127.0.0.1:%d/vla-eval", timeout: 120}
benchmarks:
  - benchmark: vla_eval.benchmarks.libero.benchmark:LIBEROBenchmark
    max_tasks: 1
    episodes_per_task: 1
    max_steps: %d
    params: {suite: libero_object, seed: 7, num_steps_wait: 2}
"""


@pytest.mark.slow
def test_vla_eval_runs_an_episode_of_libero(tmp_path: Path) -> None:
    python = os.environ.get("VLA_PYTHON_VLA_EVAL", sys.executable)
    needed = "import vla_eval, libero.libero, robosuite"
    if subprocess.run([python, "-c", needed], capture_output=True).returncode:
        pytest.skip(f"{python} has no vla-eval with LIBERO")
    parts = TINY_POLICY | {"head": HEADS["regression"][0]}
    robot = RobotSpec(LIBERO, ("agentview",), (32, 32), horizon=2)
    policy = build_policy(parts, train_tokenizer(WORDS, 800), specs={"robot": robot}, chunks={})
    save_policy(policy, parts, tmp_path / "policy")
    with served(tmp_path / "policy") as port:
        (tmp_path / "libero.yaml").write_text(EVALUATION % (port, STEPS))
        command = [python, "-m", "vla_eval.cli.main", "run", "-c", str(tmp_path / "libero.yaml")]
        command += ["--no-docker", "--output-dir", str(tmp_path / "results")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = (tmp_path / "results").rglob("*.json")
    (task,) = json.loads(file.read_text())["tasks"]
    (episode,) = task["episodes"]
    assert episode["steps"] == STEPS and "failure_reason" not in episode
