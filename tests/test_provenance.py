"""Provenance of a run: the commit from git or pip, and the machine."""

from __future__ import annotations

import json
import os
import subprocess
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

import pytest
import torch

from vla.training import provenance


@pytest.fixture(autouse=True)
def outside_of_git_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A git hook sets variables that send ``git`` to the hook's repository."""
    for name in [n for n in os.environ if n.startswith("GIT_")]:
        monkeypatch.delenv(name)


def git(folder: Path, *arguments: str) -> str:
    author = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(
        ["git", "-C", str(folder), *author, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_commit_of_a_package_in_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "repository/package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git(tmp_path / "repository", "init", "-q")
    git(package, "add", "__init__.py")
    git(package, "commit", "-qm", "first")
    head = git(package, "rev-parse", "HEAD")
    (tmp_path / "repository/notes.md").write_text("not code")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))  # as in a git hook
    assert provenance.commit(package) == head[:12]
    (package / "__init__.py").write_text("changed = True")
    assert provenance.commit(package) == head[:12] + "+"


def test_a_package_inside_an_unrelated_repository_has_the_commit_of_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "environment/package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-qm", "theirs", "--allow-empty")
    origin = {"url": "https://example.org", "vcs_info": {"commit_id": "0123456789abcdef"}}

    class Installed(Distribution):
        def read_text(self, filename: str) -> str | None:
            return json.dumps(origin) if filename == "direct_url.json" else None

        def locate_file(self, path: object) -> Path:
            return package / str(path)

    monkeypatch.setattr(provenance, "distribution", lambda name: Installed())
    assert provenance.commit(package) == "0123456789ab"
    origin = {"url": "file:///wheel", "archive_info": {}}
    assert provenance.commit(package) == ""

    def missing(name: str) -> Distribution:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(provenance, "distribution", missing)
    monkeypatch.setenv("PATH", "")  # no git
    assert provenance.commit(package) == ""


def test_a_row_has_the_machine_and_threads() -> None:
    row = provenance.row(7, torch.device("cpu"), 2)
    assert tuple(row) == provenance.COLUMNS and (row["step"], row["devices"]) == (7, 2)
    assert (
        row["device"] == f"cpu {torch.backends.cpu.get_cpu_capability()}"
        and row["threads"] == torch.get_num_threads()
    )
