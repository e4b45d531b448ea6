"""The code and machine of a training run: one CSV row for each start of the run."""

from __future__ import annotations

import json
import os
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

FILE = "provenance.csv"
COLUMNS = ("step", "commit", "torch", "device", "devices", "threads")


def row(step: int, device: Any, devices: int) -> dict[str, Any]:
    """The row of a run that starts or continues at ``step``.

    Args:
        step: 0, or the step of the checkpoint.
        device: torch device of this process.
        devices: number of processes.
    """
    import torch

    name = device.type
    if name == "cuda":
        name = torch.cuda.get_device_name(device)
    elif name == "cpu":
        # The vector instructions change the order of floating-point sums.
        name += " " + torch.backends.cpu.get_cpu_capability()
    values = (step, commit(), torch.__version__, name, devices, torch.get_num_threads())
    return dict(zip(COLUMNS, values, strict=True))


def commit(folder: Path = Path(__file__).parent.parent) -> str:
    """The git commit (12 digits) of a package's folder; empty if it is unknown.

    ``+`` follows if files of the folder differ from the commit. For a package that pip installed
    from a repository it is the commit of that repository. Releases have no commit.
    """
    try:
        # Fails if the folder merely lies inside an unrelated repository.
        _git(folder, "ls-files", "--error-unmatch", "__init__.py")
        changed = _git(folder, "status", "--porcelain", "--", ".")
        return _git(folder, "rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return _installed_commit()


def _git(folder: Path, *arguments: str) -> str:
    # In a git hook these variables name the hook's repository.
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.strip()


def _installed_commit() -> str:
    """The commit that pip recorded for this package (PEP 610)."""
    try:
        origin = json.loads(distribution("vla").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        return ""
    return str(origin.get("vcs_info", {}).get("commit_id", ""))[:12]
