"""The folder of a saved policy."""

from __future__ import annotations

from pathlib import Path

from vla.errors import DataError
from vla.policies.hub import downloaded, is_address

WEIGHTS = "model.safetensors"
FILES = (WEIGHTS, "policy.yaml", "robot_spec.json", "tokenizer")
BASE = "base.json"  # of a policy without the weights of its base


def old_name(directory: Path) -> Path:
    """The name of an old policy while a new one takes its place."""
    return directory.with_name(directory.name + ".old")


def find_policy(directory: str | Path) -> Path:
    """The folder of a saved policy, with all its files; one on the hub is downloaded.

    Args:
        directory: a folder, or ``hf://owner/name``.

    Raises:
        DataError: a file is missing, or the hub cannot be read.
    """
    directory = downloaded(directory, (*FILES, BASE)) if is_address(directory) else Path(directory)
    if not directory.exists() and old_name(directory).is_dir():  # killed between two renames
        directory = old_name(directory)
    if not directory.is_dir():
        raise DataError(f"{directory}: no such folder; expected the folder of a saved policy")
    for name in FILES:
        if not (directory / name).exists():
            inside = directory / "policy"
            advice = f"did you mean {inside}?" if inside.is_dir() else "save or copy it again"
            raise DataError(
                f"{directory / name}: missing; a saved policy has {', '.join(FILES)}; {advice}"
            )
    return directory
