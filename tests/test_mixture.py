"""The mixture of data sets: what a file or an override replaces, and what a run logs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from vla.config import check, load_config
from vla.errors import ConfigError
from vla.training import monitor
from vla.training.config import RunConfig
from vla.training.curves import read_curves
from vla.training.run import train


@pytest.fixture
def over(tiny_run: dict[str, Any], tmp_path: Path) -> Any:
    """The data configuration of a file with this ``data`` over a base with robot and web data."""
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(tiny_run))

    def load(data: dict[str, Any], *overrides: str) -> Any:
        own = {"base": "base.yaml", "data": data}
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
        return load_config(tmp_path / "own.yaml", overrides, RunConfig).data

    return load


def test_a_mixture_replaces_that_of_the_base(over: Any, tiny_data: dict[str, str]) -> None:
    web = over({"sampling_weights": {"web": 1.0}})
    assert web.sampling_weights == {"web": 1.0} and set(web.datasets) == {"robot", "web"}
    assert web.shuffle == 60  # other options are merged
    alone = {"datasets": {"robot": tiny_data["robot"]}, "sampling_weights": {"robot": 1.0}}
    assert set(over(alone).datasets) == {"robot"}
    assert over({}).sampling_weights == {"robot": 0.5, "web": 0.5}


def test_an_override_replaces_the_mixture_or_changes_one_key(over: Any) -> None:
    assert over({}, "data.sampling_weights={web: 1.0}").sampling_weights == {"web": 1.0}
    assert over({}, "data={sampling_weights: {web: 1.0}}").sampling_weights == {"web": 1.0}
    changed = over({}, "data.sampling_weights.web=0", "data.datasets.web=other")
    assert changed.sampling_weights == {"robot": 0.5, "web": 0.0}
    assert changed.datasets["web"] == "other"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"sampling_weights": {"wbe": 1.0}},
            "data.sampling_weights.wbe: data.datasets has no such data set; did you mean 'web'?",
        ),
        ({"datasets": {"web": "x"}}, "data.sampling_weights.robot: data.datasets has no such"),
        ({"robots": {"robt": "arm"}}, "data.robots.robt: data.datasets has no such data set; did"),
        ({"cameras": {"robt": ["top"]}}, "data.cameras.robt: data.datasets has no such data set"),
        ({"relative": ["robt"]}, "data.relative.robt: data.datasets has no such data set"),
    ],
)
def test_an_option_of_an_unknown_data_set_is_refused(
    over: Any, data: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        over(data)


def shares(folder: Path) -> dict[str, list[float]]:
    """Data set -> its logged share of the image rows, by step."""
    curves = read_curves(folder)
    return {n: [v for _, v in curves[f"mixture/{n}"]] for n in ("robot", "web")}


def test_the_share_is_logged_with_loader_workers(tiny_run: dict[str, Any]) -> None:
    tiny_run["data"] = tiny_run["data"] | {
        "workers": 1,
        "sampling_weights": {"robot": 0.8, "web": 0.2},
    }
    tiny_run["train"] = tiny_run["train"] | {"steps": 10, "batch_size": 8, "val_every": 10}
    folder = train(check(tiny_run, RunConfig, ""), progress=False).parent
    found = shares(folder)
    assert len(found["robot"]) == 10 and abs(found["robot"][-1] - 0.8) < 0.15
    assert found["robot"][-1] + found["web"][-1] == pytest.approx(1)


def test_the_share_is_that_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    own = monitor.Monitor("run", 1, False, Path("log"))
    own.rows_used, own.rows = Counter({"robot": 3, "web": 1}), 0
    others = [Counter({"robot": 1}), Counter({"web": 3})]
    monkeypatch.setattr(monitor, "gather", lambda counts: [counts, *others])
    group = {"param_groups": [{"lr": 0.1}]}
    trainer = type("Trainer", (), {"optimizers": [type("Optimizer", (), group)]})
    metrics = own._rates(trainer)
    assert (metrics["mixture/robot"], metrics["mixture/web"]) == (0.5, 0.5)
    assert metrics["images"] == 8


@pytest.mark.slow
def test_two_processes_log_the_share_of_both(tiny_run: dict[str, Any], tmp_path: Path) -> None:
    tiny_run["train"] = tiny_run["train"] | {"steps": 4, "val_every": 4}
    tiny_run["trainer"] = {"accelerator": "cpu", "devices": 2}
    tiny_run["data"] = tiny_run["data"] | {"workers": 1}
    config, script = tmp_path / "two.yaml", tmp_path / "two.py"
    config.write_text(yaml.safe_dump(tiny_run))
    script.write_text("from vla.cli import main\n\nif __name__ == '__main__':\n    main()\n")
    command = [sys.executable, str(script), "train", str(config)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    folder = Path(str(tiny_run["output_dir"]))
    assert read_curves(folder)["images"][-1][1] == 4 * 4  # steps, rows
    assert len(shares(folder)["robot"]) >= 1
