"""The Markdown pages: their code runs, their commands and links exist, and they stay short."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from readme_examples import CODE, load_example

from vla.config import load_config, registered
from vla.config.registry import _REGISTRY
from vla.policies.checkpoint import load_policy
from vla.testing import check_component
from vla.training.run import RunConfig, train
from vla.utils.csv_tables import block

PAGES = sorted(
    p
    for p in REPOSITORY.rglob("*.md")
    if not {".venv", "runs", "node_modules"} & set(p.relative_to(REPOSITORY).parts)
    and not any(part.startswith(".") for part in p.relative_to(REPOSITORY).parts)
)
README = REPOSITORY / "README.md"
GENERATED = REPOSITORY / "configs" / "README.md"


def blocks(page: Path, language: str) -> list[str]:
    """Code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def test_the_front_page_and_all_pages_together_are_short() -> None:
    assert len(README.read_text().splitlines()) <= 180
    words = {p: len(p.read_text().split()) for p in PAGES if p != GENERATED}
    assert sum(words.values()) <= 20_000, words


def test_the_python_example_of_the_front_page_runs() -> None:
    (code,) = blocks(README, "python")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"[\w ]+ -> (success|failure)\n", done.stdout)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_links_and_paths_exist(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text)
    for link in links:
        if not link.startswith(("http://", "https://")):
            assert (page.parent / link).exists(), f"{page}: {link}"
    for path in re.findall(r"(?:configs|experiments)/[\w/]+\.(?:yaml|py)", text):
        assert (REPOSITORY / path).is_file(), f"{page}: {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_commands_and_their_options_exist(page: Path) -> None:
    """Every ``vla VERB --option`` of a page is known to the command line."""
    from typer.main import get_command

    from vla.cli import app

    group = get_command(app)
    commands = "\n".join([*blocks(page, "bash"), *re.findall(r"`(vla [^`\n]+)`", page.read_text())])
    for line in commands.replace("\\\n", " ").splitlines():
        found = re.search(r"(?:^|[ /`])vla ([a-z][\w-]*)(.*)", line.split("#")[0])
        if found is None or "pip install" in line:
            continue
        verb, rest = found[1], found[2]
        assert verb in group.commands, f"{page}: vla {verb}"
        known = {o for p in group.commands[verb].params for o in p.opts}
        if not hasattr(group.commands[verb], "commands"):
            for option in re.findall(r"(?<!\S)(--[a-z-]+)", rest):
                assert option in known, f"{page}: vla {verb} {option}"


def test_every_example_of_the_architecture_page_is_short_and_one_file() -> None:
    kinds = [Path(path).parent.as_posix() for path in CODE]
    assert kinds == [
        "vla/models/vision",
        "vla/models/heads",
        "vla/benchmarks",
        "vla/data/readers",
        "vla/serve/protocols",
    ]
    for path, code in CODE.items():
        assert sum(bool(line.strip()) for line in code.splitlines()) <= 40, path
        assert not (REPOSITORY / path).exists(), path


@pytest.mark.parametrize(("slot", "name"), [("vision", "patches"), ("head", "tanh")])
def test_the_model_examples_pass_the_checks_of_components(
    slot: str, name: str, tmp_path: Path
) -> None:
    """The other examples have tests beside what they extend: benchmarks, data, serve."""
    registered(slot)
    load_example(name, tmp_path)
    try:
        check_component(slot, name)
    finally:
        del _REGISTRY[slot][name]


def test_the_results_table_follows_from_the_summaries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "experiments"))
    import front_page

    assert block(README, "results") == front_page.tables()["results"]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Lightning and tensorboard warn about their own code
def test_the_swaps_of_the_front_page_train(tiny_data: dict[str, str], tmp_path: Path) -> None:
    lines = re.findall(r"^vla train (\S+) (\S+) output_dir=", README.read_text(), re.MULTILINE)
    assert len(lines) == 3
    short = [f"data.datasets.{name}={path}" for name, path in tiny_data.items()]
    short += ["train.steps=1", "train.val_every=1", "train.val_windows=2", "train.batch_size=2"]
    for n, (path, swap) in enumerate(lines):
        changes = [swap, f"output_dir={tmp_path / str(n)}", *short]
        folder = train(load_config(REPOSITORY / path, changes, RunConfig), progress=False)
        assert load_policy(folder).spec.cameras == ("top",)
