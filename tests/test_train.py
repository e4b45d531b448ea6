"""Training: golden losses, logs, early stopping, and the path to the loss."""

from __future__ import annotations

import json
import re
import traceback
from pathlib import Path
from typing import Any

import pytest
import yaml
from training_runs import GOLDEN, losses

import vla
from vla.config import check
from vla.errors import ConfigError
from vla.models.heads.token import TokenHead
from vla.policies.checkpoint import load_policy
from vla.training.run import RunConfig, train, train_from_file

# Lightning and tensorboard emit warnings about their own code.
pytestmark = pytest.mark.filterwarnings("default")


def run(configuration: dict[str, Any], progress: bool = False) -> Path:
    """Train in this process; returns the folder of the saved policy."""
    return train(check(configuration, RunConfig, ""), progress)


def test_losses_equal_the_golden_ones_and_the_run_is_logged(tiny_run: dict[str, Any]) -> None:
    tiny_run["train"] = tiny_run["train"] | {"steps": 10, "eval": {"episodes": 1}}
    saved = run(tiny_run)
    folder = saved.parent
    measured = {step: float(v) for step, v in losses(folder).items()}
    golden = {int(step): v for step, v in json.loads(GOLDEN.read_text()).items()}
    assert measured == pytest.approx(golden, rel=2e-3), f"measured {json.dumps(measured)}"
    policy = load_policy(saved)
    assert policy.spec.cameras == ("top",) and policy.spec.benchmark["name"] == "tabletop"
    for metric in ("val/loss/robot", "val/loss/web", "train/l1/dx", "mixture/web"):
        assert losses(folder, metric), metric
    for metric in ("flop_utilisation", "images_per_second", "eval/success"):
        assert losses(folder, metric), metric
    assert all(0 < float(v) <= 1 for v in losses(folder, "flop_utilisation").values())
    events = [path.read_bytes() for path in (folder / "tensorboard" / folder.name).glob("events*")]
    assert any(b"rollouts" in data and b"GIF8" in data for data in events)


def test_a_folder_belongs_to_one_configuration(tiny_run: dict[str, Any]) -> None:
    tiny_run["train"] = tiny_run["train"] | {"steps": 1}
    saved = run(tiny_run)
    file = saved.parent / "config.yaml"
    settings = yaml.safe_load(file.read_text())
    # The number of threads may differ, and an option of a newer version has its default.
    threads = {"threads": tiny_run["train"]["threads"] + 1}
    del settings["optim"]["lr_scale"]
    file.write_text(yaml.safe_dump(settings))
    before = (saved / "model.safetensors").stat().st_mtime_ns
    assert run(tiny_run | {"train": tiny_run["train"] | threads}) == saved
    assert (saved / "model.safetensors").stat().st_mtime_ns == before  # a finished run is kept
    with pytest.raises(ConfigError, match="another configuration"):
        run(tiny_run | {"optim": {"lr": 0.5}})
    file.write_text(yaml.safe_dump(settings | {"removed_option": 1}))
    with pytest.raises(ConfigError, match="another configuration"):
        run(tiny_run)


def test_without_a_terminal_progress_is_shown_in_lines(
    tiny_run: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_run["train"] = tiny_run["train"] | {"steps": 4, "log_every": 2}
    folder = run(tiny_run, progress=True).parent
    start, *lines = (folder / "train.log").read_text().splitlines()
    assert re.match(r"train run: 0\.\d\dM parameters .* for 4 steps of 4 image rows, on cpu", start)
    assert [line.split(",")[0] for line in lines] == [f"train run: {n}/4 steps" for n in (2, 4)]
    assert all(re.search(r"[\d.]+/s, ETA 0:00:\d\d, loss \d.*, loss/robot \d", x) for x in lines)
    shown = capsys.readouterr().err.splitlines()
    assert shown[0] == start
    report = "\n".join(shown[1:])
    for part in ("finished: 4 steps", "best validation  step 3: ", "vla serve", "--logdir"):
        assert part in report


def test_training_stops_without_improvement_and_saves_the_best_weights(
    tiny_run: dict[str, Any],
) -> None:
    tiny_run["train"] = tiny_run["train"] | {"steps": 40, "val_every": 2, "patience": 2}
    tiny_run["optim"] = {"lr": 0.0}
    folder = run(tiny_run).parent
    assert len(losses(folder)) == 6  # the best validation, then two without improvement
    tiny_run["output_dir"] += "2"
    tiny_run["train"]["monitor"] = "val/los"
    message = r"train\.monitor=val/los: no such validation metric; choices: .*val/loss"
    with pytest.raises(ValueError, match=message):
        run(tiny_run)


def test_a_policy_with_adapters_trains_and_reloads(tiny_run: dict[str, Any]) -> None:
    decoder = tiny_run["policy"]["decoder"] | {"lora": {"rank": 2}}
    tiny_run["policy"] = tiny_run["policy"] | {"decoder": decoder}
    tiny_run["train"] = tiny_run["train"] | {"steps": 2}
    policy = load_policy(run(tiny_run))
    assert any("lora_A" in name for name, _ in policy.named_parameters())


def test_training_needs_robot_data(tiny_run: dict[str, Any]) -> None:
    web = tiny_run["data"]["datasets"]["web"]
    tiny_run["data"] = {"datasets": {"web": web}, "sampling_weights": {"web": 1.0}}
    with pytest.raises(ConfigError, match="no robot episodes"):
        run(tiny_run)


def test_an_error_before_the_first_step_is_reported(tiny_run: dict[str, Any]) -> None:
    tiny_run["optim"] = {"frozen": ["hed"]}
    with pytest.raises(ValueError, match="no parameters in 'hed'"):
        run(tiny_run)


def test_from_the_command_to_the_loss_there_are_five_functions(
    tiny_run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss(*arguments: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(TokenHead, "loss", loss)
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tiny_run))
    with pytest.raises(ZeroDivisionError) as caught:
        train_from_file(str(path), [], progress=False)
    package = str(Path(vla.__file__).parent)
    frames = traceback.extract_tb(caught.tb)
    ours = [f.name for f in frames if f.filename.startswith(package)]
    assert [*ours, "loss"] == ["train_from_file", "train", "training_step", "losses", "loss"]
