"""Training: golden losses, kill and resume, what is logged, and errors."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from vla.callbacks import RngState
from vla.config import ConfigError, check
from vla.policy import VLAPolicy
from vla.provenance import COLUMNS, FILE
from vla.tables import read_table
from vla.train import RunConfig, train

pytestmark = pytest.mark.filterwarnings("default")  # Lightning and tensorboard warn about their own affairs
GOLDEN = Path(__file__).parent / "golden_losses.json"


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


def as_in_a_terminal() -> None:
    """What runs in the background may have been told to ignore Ctrl-C, and its children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def stopped_and_continued(
    run_config: dict[str, Any], folder: Path, how: signal.Signals, group: bool = False
) -> list[tuple[dict[int, str], dict[int, str]]]:
    """(losses, validation losses) of a run left alone and of one that was stopped and called again."""
    killed = how is signal.SIGKILL
    every = 1 if group and how is signal.SIGINT else 4  # 1: a stop is always one of a validation
    settings = run_config | {"train": run_config["train"] | {"steps": 60, "val_every": every, "save_every": 2 if killed else 16}}
    curves = []
    for name in ("whole", "torn"):
        config, run = folder / f"{name}.yaml", folder / name
        config.write_text(yaml.safe_dump(settings | {"run": str(run)}))
        command = [sys.executable, "-c", "from vla.cli import main; main()", "train", str(config)]
        if name == "torn":
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=as_in_a_terminal,
                start_new_session=True,
            )  # fmt: skip
            while not (run / "last.ckpt").exists() and process.poll() is None:
                time.sleep(0.02)
            time.sleep(random.uniform(0.0, 0.2))
            assert process.poll() is None, "finished before it could be stopped"
            os.killpg(process.pid, how) if group else process.send_signal(how)
            said = process.communicate()[1]
            assert not (run / "policy").exists()
            if not killed:  # the step in hand is finished and nothing is lost
                assert process.returncode == 130
                found = re.search(r"interrupted: stopped at step (\d+) of 60; the same command continues", said)
                assert found, said
                assert int(found[1]) == torch.load(run / "last.ckpt", weights_only=True)["global_step"]
        subprocess.run(command, check=True, capture_output=True)
        curves.append((losses(run), losses(run, "val/loss")))
        first, *after = read_table(run / FILE, COLUMNS)
        assert first["step"] == "0" and [0 < int(r["step"]) < 60 for r in after] == [True] * (name == "torn")
    return curves


STOPS = [(signal.SIGKILL, 0), (signal.SIGTERM, 2), (signal.SIGINT, 0)]
LONG = [(signal.SIGKILL, 2), (signal.SIGTERM, 0), (signal.SIGINT, 2)]


@pytest.mark.parametrize(
    ("how", "workers"),
    [*STOPS, *(pytest.param(*stop, marks=pytest.mark.slow) for stop in LONG)],
    ids=lambda v: v.name if isinstance(v, signal.Signals) else str(v),
)
def test_a_stopped_run_continues_on_the_same_curve(
    tiny_run: dict[str, Any], tmp_path: Path, how: signal.Signals, workers: int
) -> None:
    """With workers as a terminal and a scheduler do it: the whole group gets the signal."""
    tiny_run["data"] = tiny_run["data"] | {"workers": workers}
    (whole, whole_val), (torn, torn_val) = stopped_and_continued(tiny_run, tmp_path, how, workers > 0)
    assert len(whole) == 60 and torn == whole
    assert len(whole_val) == (60 if workers and how is signal.SIGINT else 15) and torn_val == whole_val


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


MEANS = """
import sys
import torch
from torch import distributed
from vla.means import Means

rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method=sys.argv[2], rank=rank, world_size=2)
means, device = Means(), torch.device("cpu")
for _ in range(2):
    for name, values in ([("train/a", [1.0, 2.0]), ("train/b", [5.0])], [("train/b", [6.0, 7.0]), ("train/c", [9.0]), ("val/a", [0.0])])[rank]:
        means.track(name, torch.tensor(values))
    assert means.take("train", device) == {"train/a": 1.5, "train/b": 6.0, "train/c": 9.0}
    assert means.take("val", device) == {"val/a": 0.0}
assert means.take("train", device) == {}
distributed.destroy_process_group()  # else its threads may abort the interpreter's exit
"""


def test_processes_that_report_different_things_agree_on_their_means(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEANS]
    both = [
        subprocess.Popen([*command, str(rank), f"file://{tmp_path}/meet"], stderr=subprocess.PIPE, text=True) for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=100)[1] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], said


def test_two_processes_train_together_and_stop_together(tiny_run: dict[str, Any], tmp_path: Path) -> None:
    config, run = tmp_path / "two.yaml", Path(str(tiny_run["run"]))
    tiny_run["train"] = tiny_run["train"] | {"devices": 2, "steps": 30, "save_every": 1000}
    config.write_text(yaml.safe_dump(tiny_run))
    script = tmp_path / "two.py"
    script.write_text("from vla.cli import main\n\nif __name__ == '__main__':\n    main()\n")
    command = [sys.executable, str(script), "train", str(config)]
    both = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=as_in_a_terminal
    )
    while len(losses(run)) < 2 and both.poll() is None:
        time.sleep(0.02)
    os.killpg(both.pid, signal.SIGINT)  # what a terminal does
    said = both.communicate(timeout=100)[1]
    found = re.search(r"interrupted: stopped at step (\d+) of 30; the same command continues", said)
    assert found, said
    assert int(found[1]) == torch.load(run / "last.ckpt", weights_only=True)["global_step"] < 30
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    assert VLAPolicy.load(run / "policy")
    assert len(losses(run)) == 30
    assert [(r["step"], r["devices"]) for r in read_table(run / FILE, COLUMNS)] == [("0", "2"), (found[1], "2")]


def test_a_start_that_failed_leaves_no_run_behind(tiny_run: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        train(check(tiny_run | {"init": "nowhere"}, RunConfig, ""), progress=False)
    saved = train(check(tiny_run | {"train": tiny_run["train"] | {"steps": 1}}, RunConfig, ""), progress=False)
    with pytest.raises(ConfigError, match="holds a run with another configuration"):
        train(check(tiny_run | {"init": str(saved)}, RunConfig, ""), progress=False)


def test_a_run_goes_on_where_there_are_other_gpus() -> None:
    state = RngState().state_dict() | {"cuda": [torch.zeros(16, dtype=torch.uint8)] * (torch.cuda.device_count() + 1)}
    moved = RngState()
    moved.load_state_dict(state)
    expected = torch.rand(3)
    moved.on_train_start(None, None)
    assert torch.equal(torch.rand(3), expected)
