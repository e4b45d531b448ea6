"""With which code, on what machine a policy was trained: a row for every time its run began or went on."""

from __future__ import annotations

import json
import os
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

FILE = "provenance.csv"
COLUMNS = ("step", "commit", "torch", "device", "devices", "threads")


def commit(folder: Path = Path(__file__).parent) -> str:
    """Which commit a package's folder is at, ``+`` behind it where files there are not as committed; for a package that pip took from a repository, that
    one's; empty where nobody can say (a release: its version says it)."""

    def git(*words: str) -> str:
        own = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}  # in a hook, these name another repository
        found = subprocess.run(["git", "-C", str(folder), *words], env=own, capture_output=True, text=True, timeout=30, check=True)
        return found.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # not some repository that an environment happens to lie in
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return _installed_commit()


def _installed_commit() -> str:
    """What pip wrote of where the package is from (PEP 610)."""
    try:
        origin = json.loads(distribution("vla").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        return ""
    return str(origin.get("vcs_info", {}).get("commit_id", ""))[:12]


def row(step: int, device: Any, devices: int) -> dict[str, Any]:
    """Of a run that begins, or goes on, at a step. devices: how many; threads: torch's, of the CPU."""
    import torch

    name = device.type
    if name == "cuda":
        name = torch.cuda.get_device_name(device)
    elif name == "cpu":
        name += " " + torch.backends.cpu.get_cpu_capability()  # sums depend on it
    values = (step, commit(), torch.__version__, name, devices, torch.get_num_threads())
    return dict(zip(COLUMNS, values, strict=True))
