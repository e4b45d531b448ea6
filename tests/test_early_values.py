"""Wrong values of a run are refused before torch is imported."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import yaml
from command_line import here, line  # fixtures

from vla.config import check, presets, registered
from vla.config.quick import _own, components
from vla.config.registry import slots
from vla.models.vision.names import names_in_files
from vla.training.config import RunConfig
from vla.training.early import check_values

__all__ = ["here", "line"]
WRONG = {
    "policy.decoder=gpt2_tny": r"policy\.decoder: no preset 'gpt2_tny' .*mean 'gpt2_tiny'",
    "policy.vision={name: tim}": r"policy\.vision\.name: no vision component 'tim'; .*'timm'",
    "policy.vision={name: conv, with: 1}": r"policy\.vision\.with: unknown key.*'widths'",
    "policy.vision={name: timm, model: resnet81}": r"policy\.vision\.model='resnet81': timm has",
    "policy.head.codec={name: quantil}": r"policy\.head\.codec\.name: no codec .*'quantile'",
    "policy.head={name: chain_of_thought, action: regresion}": r"policy\.head\.action: no preset",
    "data.datasets.robot=nowhere": r"nowhere: no such data folder; make it with `vla pack`",
    "init_from=nowhere": r"init_from=nowhere: not the folder of a policy; train this policy first",
}


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_value_is_one_line(
    line: Callable[..., str], tiny_run: dict[str, Any], tmp_path: Path, override: str
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tiny_run))
    assert re.search(f"^error: {WRONG[override]}", line("train", path, override))


def test_a_run_may_start_from_a_policy_on_the_hub(tiny_run: dict[str, Any]) -> None:
    check_values(check(tiny_run | {"init_from": "hf://lab/seen"}, RunConfig, ""))


def test_wrong_values_are_refused_without_torch(tiny_run: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tiny_run))
    code = f"""
import sys
from vla.config import load_config
from vla.training.config import RunConfig
from vla.training.early import check_values
for override in {list(WRONG)!r}:
    try:
        load_config({str(path)!r}, [override], RunConfig, early=check_values)
    except ValueError:
        assert "torch" not in sys.modules, override
    else:
        raise SystemExit(f"accepted: {{override}}")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("slot", slots())
def test_the_source_text_has_every_component_and_option_of_this_package(slot: str) -> None:
    from vla.config.options import options

    own = {n: c for n, c in registered(slot).items() if c.__module__.startswith("vla.")}
    assert set(_own(slot)) == set(own)
    for name, source in _own(slot).items():
        if source.options is not None:
            assert source.options == set(options(own[name])), name
    for preset in presets(slot):
        assert list(components(preset, slot, slot))


def test_the_names_in_timm_s_files_are_those_of_timm() -> None:
    assert set(timm.list_models()) <= names_in_files()
