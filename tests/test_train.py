"""Training: golden losses, kill and resume, what is logged, and errors."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from vla.config import ConfigError, check
from vla.policy import VLAPolicy
from vla.train import RunConfig, train

pytestmark = pytest.mark.filterwarnings("default")  # Lightning and tensorboard warn about their own affairs
GOLDEN = Path(__file__).parent / "golden_losses.json"
COMMAND = "import sys, yaml; from vla.config import check; from vla.train import RunConfig, train; train(check(yaml.safe_load(open(sys.argv[1])), RunConfig, ''), False)"


def losses(run: Path, name: str = "train/loss") -> dict[int, str]:
    """Logged values by step, the last word of each step (a resumed run writes a new file)."""
    found: dict[int, str] = {}
    for path in sorted(run.glob("csv*/metrics.csv")):
        with path.open(newline="") as file:
            found |= {int(r["step"]): r[name] for r in csv.DictReader(file) if r.get(name)}
    return found


def test_golden_losses_and_saved_policy(tiny_run: dict[str, Any]) -> None:
    tiny_run["train"] = tiny_run["train"] | {"steps": 10, "rollouts": 1}
    folder = train(check(tiny_run, RunConfig, ""), progress=False)
    run = folder.parent
    measured = {step: float(v) for step, v in losses(run).items()}
    golden = {int(step): v for step, v in json.loads(GOLDEN.read_text()).items()}
    assert measured == pytest.approx(golden, rel=2e-3), f"measured {json.dumps(measured)}"
    policy = VLAPolicy.load(folder)
    assert policy.contract.cameras == ("top",) and policy.contract.environment["name"] == "tabletop"
    assert (
        losses(run, "val/loss/robot") and losses(run, "val/loss/web") and losses(run, "train/l1/dx") and losses(run, "mixture/web")
    )
    assert losses(run, "flop_utilisation") and losses(run, "images_per_second")
    assert losses(run, "val/success")
    assert any(b"rollouts" in p.read_bytes() and b"GIF8" in p.read_bytes() for p in (run / "tensorboard").glob("events*"))
    tiny_run["train"] = tiny_run["train"] | {"threads": tiny_run["train"].get("threads", 0) + 1}  # the same run, on another machine
    saved = yaml.safe_load((run / "config.yaml").read_text())
    del saved["optim"]["factor"]  # a setting that did not exist when this run began
    (run / "config.yaml").write_text(yaml.safe_dump(saved))
    assert train(check(tiny_run, RunConfig, ""), progress=False) == folder  # finished: nothing is done again
    (run / "config.yaml").write_text(yaml.safe_dump(saved | {"gone": 1}))  # a setting that is no more
    with pytest.raises(ConfigError, match="another configuration"):
        train(check(tiny_run, RunConfig, ""), progress=False)
    (run / "config.yaml").write_text(yaml.safe_dump(saved))
    tiny_run["optim"] = {"lr": 0.5}
    with pytest.raises(ConfigError, match="another configuration"):
        train(check(tiny_run, RunConfig, ""), progress=False)


def test_kill_minus_nine_and_resume_give_the_same_curve(tiny_run: dict[str, Any], tmp_path: Path) -> None:
    tiny_run["train"] = tiny_run["train"] | {"steps": 12, "val_every": 4, "save_every": 2}
    curves = []
    for name in ("whole", "torn"):
        config = tmp_path / f"{name}.yaml"
        config.write_text(yaml.safe_dump(tiny_run | {"run": str(tmp_path / name)}))
        command = [sys.executable, "-c", COMMAND, str(config)]
        if name == "torn":
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while not (tmp_path / name / "last.ckpt").exists() and process.poll() is None:
                time.sleep(0.02)
            time.sleep(random.uniform(0.0, 0.3))
            assert process.poll() is None, "finished before it could be killed"
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert not (tmp_path / name / "policy").exists()
        subprocess.run(command, check=True, capture_output=True)
        curves.append((losses(tmp_path / name), losses(tmp_path / name, "val/loss")))
    (whole, whole_val), (torn, torn_val) = curves
    assert len(whole) == 12 and torn == whole
    assert len(whole_val) == 3 and torn_val == whole_val


def test_training_stops_when_nothing_gets_better_and_keeps_the_best(tiny_run: dict[str, Any]) -> None:
    tiny_run["train"] = tiny_run["train"] | {"steps": 40, "val_every": 2, "patience": 2}
    tiny_run["optim"] = {"lr": 0.0}
    run = train(check(tiny_run, RunConfig, ""), progress=False).parent
    assert len(losses(run)) == 6  # one best, then two that are no better
    tiny_run["run"] += "2"
    tiny_run["train"]["watch"] = "val/los"
    with pytest.raises(ValueError, match=r"train\.watch='val/los': validation has no such figure; it has .*val/loss"):
        train(check(tiny_run, RunConfig, ""), progress=False)


def test_adapters_from_yaml_train_and_reload(tiny_run: dict[str, Any]) -> None:
    tiny_run["policy"] = tiny_run["policy"] | {"decoder": tiny_run["policy"]["decoder"] | {"lora": {"rank": 2}}}
    tiny_run["train"] = tiny_run["train"] | {"steps": 2}
    policy = VLAPolicy.load(train(check(tiny_run, RunConfig, ""), progress=False))
    assert any("lora_A" in n for n, _ in policy.named_parameters())


def test_robot_data_is_needed(tiny_run: dict[str, Any]) -> None:
    tiny_run["data"] = {"datasets": {"web": tiny_run["data"]["datasets"]["web"]}, "mixture": {"web": 1.0}}
    with pytest.raises(ConfigError, match="no robot episodes"):
        train(check(tiny_run, RunConfig, ""), progress=False)


def test_two_processes_train_together(tiny_run: dict[str, Any], tmp_path: Path) -> None:
    config = tmp_path / "two.yaml"
    tiny_run["train"] = tiny_run["train"] | {"devices": 2, "steps": 4}
    config.write_text(yaml.safe_dump(tiny_run))
    script = tmp_path / "two.py"
    script.write_text(COMMAND.replace("; train(check", "\nif __name__ == '__main__':\n    train(check"))
    subprocess.run([sys.executable, str(script), str(config)], check=True, capture_output=True, timeout=200)
    assert VLAPolicy.load(Path(str(tiny_run["run"])) / "policy")


def test_a_start_that_failed_leaves_no_run_behind(tiny_run: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        train(check(tiny_run | {"init": "nowhere"}, RunConfig, ""), progress=False)
    saved = train(check(tiny_run | {"train": tiny_run["train"] | {"steps": 1}}, RunConfig, ""), progress=False)
    with pytest.raises(ConfigError, match="holds a run with another configuration"):
        train(check(tiny_run | {"init": str(saved)}, RunConfig, ""), progress=False)
