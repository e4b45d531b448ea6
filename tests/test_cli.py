"""The command line as a user meets it, and the shape of the code."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY

VLA = [sys.executable, "-c", "from vla.cli import main; main()"]


def vla(*args: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*VLA, *args], capture_output=True, text=True, timeout=timeout, cwd=REPOSITORY)


def test_help_is_quick_and_does_not_import_torch() -> None:
    best = 9.0
    for _ in range(3):
        start = time.perf_counter()
        done = vla("--help")
        best = min(best, time.perf_counter() - start)
    assert done.returncode == 0 and all(verb in done.stdout for verb in ("pack", "train", "eval", "demo", "data"))
    assert best <= 1.0, f"vla --help took {best:.2f} s"
    check = "import sys; sys.argv=['vla']; import vla.cli; assert not {'torch', 'lightning', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=REPOSITORY)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "configs/demo_tokn.yaml"], r"error: configs/demo_tokn\.yaml: no such configuration; did you mean 'demo_token'"),
        (["train", "configs/demo_token.yaml", "train.stepz=1"], r"error: train\.stepz: unknown key; did you mean 'steps'"),
        (["eval", "nowhere"], r"error: nowhere/model\.safetensors: missing"),
        (["data", "verify", "nowhere"], r"error: nowhere: no such data folder; make it with `vla pack`"),
        (["pack", "configs/pack/demo_robot.yaml", "x", "source.episodes=0"], r"error: x: the source has zero episodes"),
    ],
)
def test_mistakes_are_one_line(args: list[str], message: str) -> None:
    done = vla(*args)
    assert done.returncode == 2 and re.search(message, done.stderr) and "Traceback" not in done.stderr


def test_pack_then_verify(tmp_path: Path) -> None:
    small = ["source.episodes=4", "source.size=32", "shard_size=2"]
    done = vla("pack", "configs/pack/demo_robot.yaml", str(tmp_path / "d"), *small)
    assert done.returncode == 0 and "4 samples" in done.stdout
    assert vla("data", "verify", str(tmp_path / "d")).returncode == 0
    shard = tmp_path / "d" / "shard-000001.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    done = vla("data", "verify", str(tmp_path / "d"))
    assert done.returncode == 1 and "shard-000001.tar" in done.stderr


def test_readme_commands_exist() -> None:
    text = (REPOSITORY / "README.md").read_text()
    verbs = set(re.findall(r"`vla (\w+)", text))
    assert verbs == {"pack", "data", "train", "eval", "demo", "zoo", "doctor", "replay", "scale", "study", "serve"}
    for path in re.findall(r"configs/[\w/]+\.yaml", text):
        assert (REPOSITORY / path).is_file(), path


@pytest.mark.filterwarnings("default")  # Lightning and tensorboard warn about their own affairs
def test_the_readmes_swaps_train(tiny_data: dict[str, str], tmp_path: Path) -> None:
    from vla.config import load_config
    from vla.policy import VLAPolicy
    from vla.train import RunConfig, train

    lines = re.findall(r"^vla train (configs/swap\.yaml) (\S+) run=", (REPOSITORY / "README.md").read_text(), re.MULTILINE)
    assert len(lines) == 3
    short = [f"data.datasets.{n}={p}" for n, p in tiny_data.items()] + [
        "train.steps=1",
        "train.val_every=1",
        "train.val_windows=2",
        "train.batch_size=2",
    ]
    for n, (path, swap) in enumerate(lines):
        run = load_config(REPOSITORY / path, [swap, f"run={tmp_path / str(n)}", *short], RunConfig)
        assert VLAPolicy.load(train(run, progress=False)).contract.cameras == ("top",)


def test_files_are_small_and_the_loss_is_near() -> None:
    for folder in ("vla", "tests"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 250, path
    # vla train -> train_from_file -> train -> (Lightning) training_step -> losses: at most four hops of ours
    hops = [
        ("cli.py", "train_from_file("),
        ("train.py", "return train("),
        ("train.py", "trainer.fit(policy"),
        ("module.py", "losses = self.losses(batch)"),
    ]
    for name, call in hops:
        assert call in (REPOSITORY / "vla" / name).read_text()


@pytest.mark.slow
def test_short_demo_learns_and_continues(tmp_path: Path) -> None:
    done = vla("demo", "--short", "--out", str(tmp_path), timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    page = (tmp_path / "report.html").read_text()
    assert (
        page.count("data:image/") == 3
        and "Q: what action should the robot take to" in page
        and "http" not in page.split("</style>")[1]
    )
    start = time.perf_counter()
    assert vla("demo", "--short", "--out", str(tmp_path), timeout=300).returncode == 0
    assert time.perf_counter() - start < 90
