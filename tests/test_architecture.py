"""Import directions, sizes of files and lengths of call chains."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import vla

PACKAGE = Path(vla.__file__).parent
REPOSITORY = PACKAGE.parent
MAX_LINES = 250

# Part of the package -> parts that its modules may import, besides its own. A module counts to the
# longest part that its name begins with; "vla" is ``vla/__init__.py``, the public API.
_BASE = "errors types utils config "
_CORE = _BASE + "data models policies inference benchmarks.base "
ALLOWED = {
    "errors": "",
    "types": "errors",
    "utils": "errors types",
    "config": "errors types utils",
    "data": _BASE,
    "models": _BASE,
    "policies": _BASE + "data models",
    "inference": _BASE + "data models policies",
    "benchmarks.base": "errors types config",
    "evaluation": _CORE,
    "training": _CORE + "evaluation",
    "serve": _CORE + "evaluation",
    "doctor": _CORE + "evaluation",
    "diagnose": _CORE + "evaluation doctor serve",
    "benchmarks": _CORE + "evaluation training serve",
    "experiments": _CORE + "evaluation training serve benchmarks",
    "testing": _CORE + "evaluation training serve benchmarks experiments",
    "cli": _CORE + "evaluation training serve benchmarks experiments doctor diagnose demo vla",
    "demo": _CORE + "evaluation training serve benchmarks experiments benchmarks.tabletop",
    "__main__": "cli",
    "vla": _CORE,
    "benchmarks.tabletop": _CORE + "evaluation training serve benchmarks",
}


def modules() -> dict[str, Path]:
    """Every module of the package by its name without ``vla.``; the package itself is "vla"."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "vla"] = path
    return found


@functools.cache
def imports() -> dict[str, set[str]]:
    """Module -> modules of the package that it imports anywhere, also in functions."""
    known = modules()
    return {name: set(_imported(path, known)) - {name} for name, path in known.items()}


def _imported(path: Path, known: dict[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [(node.module or "", alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [(alias.name, "") for alias in node.names]
        else:
            continue
        for module, name in names:
            if module.split(".")[0] == "vla":
                module = module.removeprefix("vla").removeprefix(".")
                inner = f"{module}.{name}".lstrip(".")
                yield inner if inner in known else module or "vla"


def part(module: str) -> str:
    return max((p for p in ALLOWED if f"{module}.".startswith(f"{p}.")), key=len)


def test_every_import_points_down() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in imports().items()
        for target in targets
        if part(target) != part(module) and part(target) not in ALLOWED[part(module)].split()
    ]
    assert sorted(wrong) == []


def test_the_allowed_directions_have_no_cycle_and_name_existing_parts() -> None:
    list(TopologicalSorter({p: set(a.split()) - {p} for p, a in ALLOWED.items()}).static_order())
    assert {part(m) for m in modules()} == set(ALLOWED)


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    try:
        list(TopologicalSorter(imports()).static_order())
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_only_the_benchmark_itself_and_the_demo_name_the_simulator() -> None:
    own = [PACKAGE / "benchmarks" / "tabletop", PACKAGE / "demo.py"]
    found = [
        str(path.relative_to(REPOSITORY))
        for path in PACKAGE.rglob("*.py")
        if not any(path.is_relative_to(folder) for folder in own)
        and "tabletop" in path.read_text(encoding="utf-8").lower()
    ]
    assert found == []


def test_files_are_few_at_the_top_and_short_everywhere() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 6
    folders = [
        PACKAGE.rglob("*.py"),
        *((REPOSITORY / f).rglob("*.py") for f in ("tests", "experiments")),
    ]
    lengths = {
        p.relative_to(REPOSITORY): len(p.read_text(encoding="utf-8").splitlines())
        for f in folders
        for p in f
    }
    assert {str(path): n for path, n in lengths.items() if n > MAX_LINES} == {}
